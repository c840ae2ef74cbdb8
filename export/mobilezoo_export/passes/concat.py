"""Wide concatenations as trees of narrow ones: XNNPACK takes up to four inputs in every version.

LiteRT's converter joins nested concatenations of one axis again. So all levels but the last concatenate along the next
axis and reshape: in a contiguous tensor that puts the same bytes in the same order.
"""

from math import prod

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

WIDEST = 4
Piece = tuple[Node, list[int]]
"""A tensor and its shape: new nodes have no shape of their own yet."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.cat.default):
        pieces: list[Piece] = [(piece, list(shape_of(piece))) for piece in node.args[0]]  # type: ignore[union-attr, arg-type, misc]
        if len(pieces) <= WIDEST:
            continue
        with model.graph.inserting_before(node):
            new = joined(model, pieces, int(argument(node, 1, "dim", 0)) % len(pieces[0][1]))
        replace(node, new)
        changed += 1
    return changed


def joined(model: GraphModule, pieces: list[Piece], axis: int) -> Node:
    """Insert a concatenation of any number of tensors, as a tree of narrow ones, at the graph's insertion point.

    Args:
        model: traced graph.
        pieces: tensors and their shapes, which differ along `axis` only.
        axis: axis to concatenate along, not negative.

    Returns:
        The node of the result.
    """
    shape = list(pieces[0][1])
    shape[axis] = sum(size[axis] for _, size in pieces)
    if len(pieces) > WIDEST and axis == len(shape) - 1:  # the folding needs an axis behind
        # All leading axes as one: a map with an axis more would have five, which GPUs do not take.
        lead = prod(shape[:-1])
        pieces = [_reshaped(model, piece, [lead, piece[1][-1], 1]) for piece in pieces]
        return _reshaped(model, (joined(model, pieces, 1), [lead, shape[-1], 1]), shape)[0]
    while len(pieces) > WIDEST:
        groups = [pieces[i : i + WIDEST] for i in range(0, len(pieces), WIDEST)]
        pieces = [_joined(model, group, axis) for group in groups]
    return model.graph.call_function(aten.cat.default, ([piece for piece, _ in pieces], axis))


def _joined(model: GraphModule, group: list[Piece], axis: int) -> Piece:
    """Concatenate a group along the axis after `axis`."""
    if len(group) == 1:
        return group[0]
    flat = [_reshaped(model, piece, _folded(piece[1], axis)) for piece in group]
    shape = list(group[0][1])
    shape[axis] = sum(size[axis] for _, size in group)
    joined = model.graph.call_function(aten.cat.default, ([piece for piece, _ in flat], axis + 1))
    return _reshaped(model, (joined, _folded(shape, axis)), shape)


def _folded(shape: list[int], axis: int) -> list[int]:
    """Return the shape with `axis` merged into the next one."""
    return [*shape[:axis], 1, shape[axis] * shape[axis + 1], *shape[axis + 2 :]]


def _reshaped(model: GraphModule, piece: Piece, shape: list[int]) -> Piece:
    node, old = piece
    return (node if old == shape else model.graph.call_function(aten.reshape.default, (node, shape))), shape
