"""LayerNorm over one axis in operators that XNNPACK takes: means are products with equal weights.

ExecuTorch's delegate leaves `native_layer_norm` outside, and every one cuts the program in two. Over the channels of an
image (a LayerNorm between two permutes, as timm's LayerNorm2d) the mean is a 1 × 1 convolution and both permutes go.
"""

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, aten, calls, replace, shape_of
from mobilezoo_export.passes.groupnorm import normalized

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.layer_norm.default):
        source = node.args[0]
        assert isinstance(source, Node)
        if len(node.args[1]) != 1:  # type: ignore[arg-type]
            continue
        channels = shape_of(source)[-1]
        row = torch.full((1, channels), 1.0 / channels)
        image = _image_behind(node, source)
        with model.graph.inserting_before(node):
            if image is not None:
                _over_channels(model, node, image, row)
            else:
                replace(node, _over_last(model, node, source, row))
        changed += 1
    return changed


def _image_behind(node: Node, source: Node) -> Node | None:
    """The NCHW tensor that is normalized over its channels between two permutes, if so."""
    if source.target is not aten.permute.default or list(source.args[1]) != TO_LAST:  # type: ignore[arg-type]
        return None
    back = all(user.target is aten.permute.default and list(user.args[1]) == TO_FIRST for user in node.users)  # type: ignore[arg-type]
    image = source.args[0]
    return image if back and isinstance(image, Node) else None


def _over_channels(model: GraphModule, node: Node, image: Node, row: torch.Tensor) -> None:
    call, kernel = model.graph.call_function, add_constant(model, row[:, :, None, None], "channel_mean")
    new = normalized(model, node, image, lambda x: call(aten.conv2d.default, (x, kernel)), (1, -1, 1, 1))
    for user in list(node.users):
        replace(user, new)
    model.graph.erase_node(node)


def _over_last(model: GraphModule, node: Node, source: Node, row: torch.Tensor) -> Node:
    call, weights = model.graph.call_function, add_constant(model, row, "feature_mean")
    return normalized(model, node, source, lambda x: call(aten.linear.default, (x, weights)), (-1,))
