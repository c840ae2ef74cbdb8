"""Batched matrix products as `bmm` on three axes: ExecuTorch cannot delegate the expands inside `matmul`."""

from math import prod

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import aten, calls, replace, shape_of


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.matmul.default):
        x, y = node.args[:2]
        assert isinstance(x, Node)
        assert isinstance(y, Node)
        x_shape, y_shape = shape_of(x), shape_of(y)
        if len(x_shape) < 3 or x_shape[:-2] != y_shape[:-2]:
            continue
        call, batch = model.graph.call_function, prod(x_shape[:-2])
        with model.graph.inserting_before(node):
            if len(x_shape) == 3:
                new = call(aten.bmm.default, (x, y))
            else:
                left = call(aten.reshape.default, (x, [batch, *x_shape[-2:]]))
                right = call(aten.reshape.default, (y, [batch, *y_shape[-2:]]))
                product = call(aten.bmm.default, (left, right))
                new = call(aten.reshape.default, (product, list(shape_of(node))))
        replace(node, new)
        changed += 1
    return changed
