"""relu(relu(x)) is relu(x)."""

from torch.fx import GraphModule

from mobilezoo_export.passes.graph import aten, calls, replace


def run(model: GraphModule) -> int:
    doubled = [n for n in calls(model, aten.relu.default) if n.args[0].target is aten.relu.default]
    for node in doubled:
        replace(node, node.args[0])
    return len(doubled)
