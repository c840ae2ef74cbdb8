"""One spelling per operator: views become reshapes, transposes become permutes, unbinding becomes selection."""

from typing import Any

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

VIEWS = (aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, *VIEWS):
        # A view needs matching strides, which later passes are free to change.
        node.target = aten.reshape.default
        node.args = node.args[:2]
        changed += 1
    for node in calls(model, aten.transpose.int, aten.t.default):
        source = node.args[0]
        assert isinstance(source, Node)
        first, second = (0, 1) if node.target is aten.t.default else (int(node.args[1]), int(node.args[2]))  # type: ignore[arg-type]
        order = list(range(len(shape_of(source))))
        if order:
            order[first], order[second] = order[second], order[first]
        node.target, node.args = aten.permute.default, (source, order)
        changed += 1
    for node in calls(model, aten.addcmul.default):
        # Core ML's converter lacks the fused form.
        base, left, right = node.args[:3]
        with model.graph.inserting_before(node):
            product = model.graph.call_function(aten.mul.Tensor, (left, right))
            scale = node.kwargs.get("value", 1)
            if scale != 1:
                product = model.graph.call_function(aten.mul.Tensor, (product, scale))
            replace(node, model.graph.call_function(aten.add.Tensor, (base, product)))
        changed += 1
    changed += _keep_dims(model)
    for node in calls(model, aten.unbind.int):
        for user in list(node.users):
            user.target, user.args = aten.select.int, (node.args[0], argument(node, 1, "dim", 0), user.args[1])
            changed += 1
    return changed


def _keep_dims(model: GraphModule) -> int:
    """Means keep their axes and are reshaped after: XNNPACK takes no others."""
    changed = 0
    for node in calls(model, aten.mean.dim):
        source = node.args[0]
        if argument(node, 2, "keepdim", False) or not isinstance(source, Node):
            continue
        with model.graph.inserting_before(node):
            kept = model.graph.call_function(aten.mean.dim, (source, node.args[1], True), _dtype(node))
            replace(node, model.graph.call_function(aten.reshape.default, (kept, list(shape_of(node)))))
        changed += 1
    return changed


def _dtype(node: Node) -> dict[str, Any]:
    dtype = node.kwargs.get("dtype")
    return {} if dtype is None else {"dtype": dtype}
