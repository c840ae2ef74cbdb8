"""log(1 + x) in two operators: ExecuTorch's delegate takes `log`, not `log1p` (the softplus of MobileMamba)."""

from torch.fx import GraphModule

from mobilezoo_export.passes.graph import aten, calls, replace


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.log1p.default):
        call = model.graph.call_function
        with model.graph.inserting_before(node):
            replace(node, call(aten.log.default, (call(aten.add.Tensor, (node.args[0], 1.0)),)))
        changed += 1
    return changed
