"""Permutations of more than four axes, in four where neighbors stay together.

That is how heads and windows are cut: [rows, 7, columns, 7, channels] to [rows, columns, 7, 7, channels] swaps two
blocks of what lies in memory as [rows, 7, columns, 7 · channels]. GPU and NPU delegates take a TRANSPOSE of four axes
at most. It is also the cheapest form on CPUs: slices and a concatenation, which need none, take three to six times the
cycles of a Cortex-A76 (XNNPACK). For the LiteRT target, after its layout pass. Left alone: swaps of the last two axes
before a matrix product, which the converter merges into it.
"""

from math import prod

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import aten, calls, replace, shape_of

MOST = 4
"""Axes that delegates take."""
PRODUCTS = (aten.einsum.default, aten.matmul.default, aten.bmm.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.permute.default):
        source = node.args[0]
        if not isinstance(source, Node) or len(shape_of(source)) <= MOST or _is_merged(node):
            continue
        shape, moves = _merged(shape_of(source), [int(axis) for axis in node.args[1]])  # type: ignore[union-attr, arg-type]
        if len(shape) > MOST:
            continue
        with model.graph.inserting_before(node):
            call = model.graph.call_function
            blocks = call(aten.reshape.default, (source, shape))
            moved = call(aten.permute.default, (blocks, moves)) if moves != sorted(moves) else blocks
            new = call(aten.reshape.default, (moved, list(shape_of(node))))
        replace(node, new)
        changed += 1
    return changed


def _is_merged(node: Node) -> bool:
    kept = [int(axis) for axis in node.args[1]][:-2] == list(range(len(shape_of(node)) - 2))  # type: ignore[union-attr, arg-type]
    return kept and any(user.target in PRODUCTS for user in node.users)


def _merged(shape: tuple[int, ...], moves: list[int]) -> tuple[list[int], list[int]]:
    """The same permutation of the fewest axes: those of one are left out, and neighbors that stay such are merged."""
    moves = [axis % len(shape) for axis in moves]
    solid = [axis for axis in sorted(moves) if shape[axis] != 1]
    place = {axis: i for i, axis in enumerate(solid)}
    blocks: list[list[int]] = []
    for axis in (place[axis] for axis in moves if axis in place):
        if blocks and axis == blocks[-1][-1] + 1:
            blocks[-1].append(axis)
        else:
            blocks.append([axis])
    stored = sorted(blocks)
    return [prod(shape[solid[i]] for i in block) for block in stored], [stored.index(block) for block in blocks]
