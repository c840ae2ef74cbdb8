"""Nearest upsampling by whole factors as repeated pixels and rows.

XNNPACK has no nearest upsampling, in LiteRT or in ExecuTorch: each one ends a delegated partition (GhostNetV2: ten of
them). Where maps are stored NHWC, a pixel is concatenated with itself; where NCHW, multiplied by a row of ones, because
ExecuTorch's delegate takes no concatenation of a tensor with itself. At most four axes.
"""

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, aten, calls, replace, shape_of

NEAREST = (aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place, for targets that store NCHW; returns the number of places it changed."""
    return rewrite(model, channels_last=False)


def rewrite(model: GraphModule, *, channels_last: bool) -> int:
    """Rewrite nearest upsampling by integer factors, in place.

    Args:
        model: traced graph with shapes.
        channels_last: move pixels of all channels together, for targets that store NHWC.

    Returns:
        The number of places changed.
    """
    changed = 0
    for node in calls(model, *NEAREST):
        source = node.args[0]
        assert isinstance(source, Node)
        before, after = shape_of(source)[2:], shape_of(node)[2:]
        if any(new % old for old, new in zip(before, after, strict=True)):
            continue
        factors = after[0] // before[0], after[1] // before[1]
        with model.graph.inserting_before(node):
            replace(node, _repeated(model, source, factors, channels_last))
        changed += 1
    return changed


def _repeated(model: GraphModule, source: Node, factors: tuple[int, int], channels_last: bool) -> Node:
    call = model.graph.call_function
    n, c, h, w = shape_of(source)
    rows, columns = factors
    if not channels_last:
        x = _times_ones(model, source, [n * c * h * w, 1, 1], columns)
        x = _times_ones(model, x, [n * c * h, 1, w * columns], rows)
        return call(aten.reshape.default, (x, [n, c, h * rows, w * columns]))

    def repeat(x: Node, shape: list[int], times: int) -> Node:
        flat = call(aten.reshape.default, (x, shape))
        return flat if times == 1 else call(aten.cat.default, ([flat] * times, 2))

    x = repeat(call(aten.permute.default, (source, [0, 2, 3, 1])), [n * h, w, c], columns)
    x = repeat(x, [n, h, w * columns * c], rows)
    x = call(aten.reshape.default, (x, [n, h * rows, w * columns, c]))
    return call(aten.permute.default, (x, [0, 3, 1, 2]))


def _times_ones(model: GraphModule, x: Node, shape: list[int], times: int) -> Node:
    """[before, 1, after] to [before, times, after]."""
    flat = model.graph.call_function(aten.reshape.default, (x, shape))
    ones = add_constant(model, torch.ones(1, times, 1), "ones")
    return flat if times == 1 else model.graph.call_function(aten.mul.Tensor, (flat, ones))
