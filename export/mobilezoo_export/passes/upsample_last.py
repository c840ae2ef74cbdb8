"""`upsample` for targets that store NHWC."""

from torch.fx import GraphModule

from mobilezoo_export.passes.upsample import rewrite


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    return rewrite(model, channels_last=True)
