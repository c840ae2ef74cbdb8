"""Nearest upsampling by a fraction, written out as slices and a concatenation.

Runtimes round fractional positions differently: LiteRT maps 3 → 7 as 0,0,1,1,1,2,2 where PyTorch has 0,0,0,1,1,2,2
(measured on GhostNetV2: outputs off by 0.44, no message), and Core ML leaves them unspecified. The source index of
each output pixel is taken from PyTorch itself, so the result is exact. Whole factors are left alone.
"""

import torch
import torch.nn.functional as F
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, replace, shape_of

MAX_SLICES = 64
"""Longer axes use one gather with constant indices instead of that many slices."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default):
        source = node.args[0]
        assert isinstance(source, Node)
        before, after = shape_of(source)[2:], shape_of(node)[2:]
        if all(new % old == 0 for old, new in zip(before, after, strict=True)):
            continue
        new_node = source
        with model.graph.inserting_before(node):
            for axis, indices in zip((2, 3), _source_indices(node, before, after), strict=True):
                new_node = _take(model, new_node, axis, indices)
        replace(node, new_node)
        changed += 1
    return changed


def _source_indices(node: Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[list[int]]:
    """Return the input row (column) of each output row (column), as PyTorch's own upsampling selects them."""
    factors = argument(node, 2, "scale_factors") if node.target is aten.upsample_nearest2d.vec else None
    grid = torch.arange(before[0] * before[1], dtype=torch.float64).reshape(1, 1, *before)
    if factors is not None:
        shown = F.interpolate(grid, scale_factor=tuple(factors), mode="nearest")
    else:
        shown = F.interpolate(grid, size=after, mode="nearest")
    rows = (shown[0, 0, :, 0] // before[1]).long().tolist()
    columns = (shown[0, 0, 0, :] % before[1]).long().tolist()
    return [rows, columns]


def _take(model: GraphModule, source: Node, axis: int, indices: list[int]) -> Node:
    if indices == list(range(shape_of(source)[axis])):
        return source
    graph = model.graph
    if len(indices) > MAX_SLICES:
        table = add_constant(model, torch.tensor(indices), "nearest_indices")
        new = graph.call_function(aten.index_select.default, (source, axis, table))
    else:
        pieces = {i: graph.call_function(aten.slice.Tensor, (source, axis, i, i + 1)) for i in sorted(set(indices))}
        new = graph.call_function(aten.cat.default, ([pieces[i] for i in indices], axis))
    shape = list(shape_of(source))
    shape[axis] = len(indices)
    new.meta["val"] = torch.empty(shape, device="meta")
    return new
