"""`expand` before arithmetic is what broadcasting does anyway; converters trip over it or copy the tensor."""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import aten, calls, shape_of

BROADCASTING = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.maximum.default,
    aten.minimum.default,
}


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.expand.default):
        source = node.args[0]
        for user in list(node.users):
            if isinstance(source, Node) and user.target in BROADCASTING and _still_broadcasts(user, node, source):
                user.replace_input_with(node, source)
                changed += 1
    return changed


def _still_broadcasts(user: Node, expanded: Node, source: Node) -> bool:
    """Whether the other operand alone gives the result its shape."""
    others = [arg for arg in user.args if isinstance(arg, Node) and arg is not expanded]
    return bool(others) and all(shape_of(other) == shape_of(user) for other in others) and bool(shape_of(source))
