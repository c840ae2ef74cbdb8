"""Permutations that only swap two blocks of axes, one of them short, as slices and a concatenation.

That is how heads and windows are cut: [tokens, heads, channels] to [heads, tokens, channels]. Slices and concatenations
along outer axes are plain copies of runs, which every delegate takes; a TRANSPOSE is refused or slow on many. For the
LiteRT target, after its layout pass. Left alone: what the converter merges (into a convolution any swap, into a matrix
product one of the last two axes), and swaps of the last axis, whose runs would be single elements.
"""

from math import prod

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.concat import joined
from mobilezoo_export.passes.graph import aten, calls, replace, shape_of

MOST = 16
"""Slices that a swap may cost."""
CONVOLUTIONS = (
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv_transpose2d.input,
    aten.avg_pool2d.default,
    aten.max_pool2d.default,
    aten.pixel_shuffle.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
)
PRODUCTS = (aten.einsum.default, aten.matmul.default, aten.bmm.default)
Blocks = tuple[int, int, int, int]
"""Elements before the swapped blocks, of the first, of the second, and after them."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.permute.default):
        source = node.args[0]
        if not isinstance(source, Node) or source.op != "call_function" or _is_merged(node, source):
            continue
        blocks = _swapped(shape_of(source), [int(axis) for axis in node.args[1]])  # type: ignore[union-attr, arg-type]
        if blocks is None or min(blocks[1:3]) > MOST or blocks[3] == 1:
            continue
        with model.graph.inserting_before(node):
            swapped = _sliced(model, source, blocks)
            new = model.graph.call_function(aten.reshape.default, (swapped, list(shape_of(node))))
        replace(node, new)
        changed += 1
    return changed


def _is_merged(node: Node, source: Node) -> bool:
    into = {user.target for user in node.users}
    if source.target in CONVOLUTIONS or not into.isdisjoint(CONVOLUTIONS):
        return True
    kept = [int(axis) for axis in node.args[1]][:-2] == list(range(len(shape_of(node)) - 2))  # type: ignore[union-attr, arg-type]
    return kept and not into.isdisjoint(PRODUCTS)


def _swapped(shape: tuple[int, ...], moves: list[int]) -> Blocks | None:
    """The sizes of the blocks, or None where the permutation is more than one swap of neighbors."""
    moves = [axis % len(shape) for axis in moves]
    solid = [axis for axis in moves if shape[axis] != 1]
    order = sorted(solid)
    start = next((i for i, (new, old) in enumerate(zip(solid, order, strict=True)) if new != old), None)
    if start is None:
        return None
    end = max(i for i in range(len(solid)) if solid[i] != order[i]) + 1
    cut = order.index(solid[start])
    if solid[start:end] != order[cut:end] + order[start:cut]:
        return None
    sizes = [shape[axis] for axis in order]
    return prod(sizes[:start]), prod(sizes[start:cut]), prod(sizes[cut:end]), prod(sizes[end:])


def _sliced(model: GraphModule, source: Node, blocks: Blocks) -> Node:
    """[before, first, second, after] to [before, second, first, after], cut along the shorter block.

    The other block stays merged with `after`, so that pieces need no reshape of their own.
    """
    before, first, second, after = blocks
    call = model.graph.call_function
    if second <= first:
        whole = call(aten.reshape.default, (source, [before, first, second * after]))
        pieces = [call(aten.slice.Tensor, (whole, 2, i * after, (i + 1) * after)) for i in range(second)]
        return joined(model, [(piece, [before, first, after]) for piece in pieces], 1)
    whole = call(aten.reshape.default, (source, [before, first * second, after]))
    pieces = [call(aten.slice.Tensor, (whole, 1, i * second, (i + 1) * second)) for i in range(first)]
    return joined(model, [(piece, [before, second, after]) for piece in pieces], 2)
