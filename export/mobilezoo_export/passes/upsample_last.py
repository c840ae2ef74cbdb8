"""`upsample` for targets that store NHWC."""

from torch.fx import GraphModule

from mobilezoo_export.passes.upsample import rewrite


def run(model: GraphModule) -> int:
    return rewrite(model, channels_last=True)
