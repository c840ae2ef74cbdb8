"""Splits, chunks and selections as slices: every delegate takes a slice, few an operator that drops an axis or has
several outputs."""

import operator

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

SPLITS = (aten.split_with_sizes.default, aten.split.Tensor, aten.chunk.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, *SPLITS):
        source, axis = node.args[0], int(argument(node, 2, "dim", 0))
        assert isinstance(source, Node)
        sizes = [int(part.shape[axis]) for part in node.meta["val"]]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        for user in list(node.users):
            assert user.target is operator.getitem
            index = int(user.args[1])  # type: ignore[arg-type]
            with model.graph.inserting_before(user):
                bounds = starts[index], starts[index] + sizes[index]
                piece = model.graph.call_function(aten.slice.Tensor, (source, axis, *bounds))
            replace(user, piece)
        model.graph.erase_node(node)
        changed += 1
    return changed + _selections(model)


def _selections(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.select.int):
        source = node.args[0]
        if not isinstance(source, Node) or source.op != "call_function" or not shape_of(node):
            continue
        shape = shape_of(source)
        axis = int(node.args[1]) % len(shape)  # type: ignore[arg-type]
        index = int(node.args[2]) % shape[axis]  # type: ignore[arg-type]
        with model.graph.inserting_before(node):
            piece = model.graph.call_function(aten.slice.Tensor, (source, axis, index, index + 1))
            replace(node, model.graph.call_function(aten.reshape.default, (piece, list(shape_of(node)))))
        changed += 1
    return changed
