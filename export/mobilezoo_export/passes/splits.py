"""Splits and chunks as slices: every delegate takes a slice, few take an operator with several outputs."""

import operator

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace

SPLITS = (aten.split_with_sizes.default, aten.split.Tensor, aten.chunk.default)


def run(model: GraphModule) -> int:
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
    return changed
