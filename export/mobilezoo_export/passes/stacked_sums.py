"""The sum of stacked tensors as additions: a stack is a copy of everything, along an axis that kernels are slow on.

Feature pyramids are often written so: in an int8 EfficientDet-Lite0 the copies and sums were a quarter of the cycles.
"""

import functools

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

MOST = 8
"""Longer stacks are left alone: one reduction is then shorter than that many additions."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.sum.dim_IntList, aten.mean.dim):
        axes, stack = list(argument(node, 1, "dim") or ()), node.args[0]
        if len(axes) != 1 or not isinstance(stack, Node) or not _same_dtype(stack, node):
            continue
        if argument(node, 2, "keepdim", False):
            continue
        parts = _stacked(stack, axes[0] % len(shape_of(stack)))
        if not 2 <= len(parts) <= MOST:
            continue
        with model.graph.inserting_before(node):
            new = functools.reduce(lambda a, b: model.graph.call_function(aten.add.Tensor, (a, b)), parts)
            if node.target is aten.mean.dim:
                new = model.graph.call_function(aten.mul.Tensor, (new, 1 / len(parts)))
        replace(node, new)
        changed += 1
    return changed


def _same_dtype(stack: Node, total: Node) -> bool:
    """Whether nothing is converted: a floating-point sum of its own type."""
    dtype = stack.meta["val"].dtype
    return bool(dtype.is_floating_point and dtype == total.meta["val"].dtype)


def _stacked(stack: Node, axis: int) -> list[Node]:
    """The tensors of a stack along this axis, all of the stack's type; none if it is something else."""
    pieces = stack.args[0] if stack.args else ()
    if stack.target is aten.cat.default and int(argument(stack, 1, "dim", 0)) % len(shape_of(stack)) == axis:
        pieces = [_before_unsqueeze(piece, axis) for piece in pieces]  # type: ignore[union-attr, arg-type]
    elif stack.target is not aten.stack.default or int(argument(stack, 1, "dim", 0)) % len(shape_of(stack)) != axis:
        return []
    parts = [piece for piece in pieces if isinstance(piece, Node)]  # type: ignore[union-attr]
    dtype = stack.meta["val"].dtype
    whole = len(parts) == len(pieces) and all(part.meta["val"].dtype == dtype for part in parts)  # type: ignore[arg-type]
    return parts if whole else []


def _before_unsqueeze(piece: Node, axis: int) -> Node | None:
    """The tensor that an `unsqueeze` of this axis takes; None for any other node."""
    if piece.target is not aten.unsqueeze.default or int(argument(piece, 1, "dim")) % len(shape_of(piece)) != axis:
        return None
    source = piece.args[0]
    return source if isinstance(source, Node) else None
