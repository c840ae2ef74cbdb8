"""Softmax of four-dimensional tensors in three dimensions, for ExecuTorch.

XNNPACK's passes store a four-dimensional tensor behind a convolution as NHWC and forget the softmax's axis: it is
taken over the channels instead, without a message (timm's MobileViTv2, ExecuTorch 1.5.1). Three dimensions have
one layout.
"""

from torch.fx import GraphModule

from mobilezoo_export.passes.graph import aten, calls, replace, shape_of


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.softmax.int):
        shape, axis = shape_of(node), int(node.args[1])  # type: ignore[arg-type]
        if len(shape) != 4 or axis not in (-1, 3):
            continue
        with model.graph.inserting_before(node):
            flat = model.graph.call_function(
                aten.reshape.default, (node.args[0], [shape[0] * shape[1], shape[2], shape[3]])
            )
            scores = model.graph.call_function(aten.softmax.int, (flat, -1, *node.args[2:]), dict(node.kwargs))
            replace(node, model.graph.call_function(aten.reshape.default, (scores, list(shape))))
        changed += 1
    return changed
