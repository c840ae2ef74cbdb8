"""Remove operators that return their input: aliases, full-range slices, zero padding, dropout, identity reshapes.

Core ML's converter lacks `alias`, which full-range slices leave behind in traced graphs. Checks of types go as well: a
cast leaves one behind, and a float16 copy of the graph would fail it.
"""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

ALWAYS = (
    aten.alias.default,
    aten.alias_copy.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.clone.default,
    aten.contiguous.default,
)
PADS = (aten.constant_pad_nd.default, aten.pad.default)
RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    checks = list(calls(model, aten._assert_tensor_metadata.default))
    for check in checks:
        model.graph.erase_node(check)
    changed = len(checks)
    for node in calls(model, *ALWAYS, *RESHAPES, *PADS, aten.slice.Tensor, aten.dropout.default):
        if _is_noop(node):
            replace(node, node.args[0])  # type: ignore[arg-type]
            changed += 1
    return changed


def _is_noop(node: Node) -> bool:
    if node.target in ALWAYS:
        return True
    source = node.args[0]
    if not isinstance(source, Node):
        return False
    if node.target in RESHAPES:
        return shape_of(node) == shape_of(source)
    if node.target is aten.dropout.default:
        return not argument(node, 2, "train", False)
    if node.target in PADS:
        return not any(argument(node, 1, "pad", ()))
    return shape_of(node) == shape_of(source) and argument(node, 4, "step", 1) == 1
