"""Padding of maps as rows of all columns' channels, which are copied at once.

XNNPACK pads a map of rows, columns and channels pixel by pixel, at 70 to 90 cycles of a Cortex-A76 each; as rows
of columns times channels the same padding copies whole rows (a map of 224 × 224 × 3 in half precision: 0.05 instead of
3.5 megacycles). Left alone: zeros before convolutions, which XNNPACK merges into them. Runs after the layout pass.
"""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of

NCHW = (0, 3, 1, 2)
"""Moves of the permute from the stored to PyTorch's order."""
PADDED_AXES = 6
"""Entries of a padding of channels, columns and rows, both ends of each."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    padded = list(calls(model, aten.constant_pad_nd.default))
    return sum(pad_rows(model, node) for node in padded if not _is_merged(node))


def pad_rows(model: GraphModule, node: Node) -> bool:
    """Write a padding of rows and columns as one of rows of columns times channels.

    Args:
        model: traced graph whose maps are stored channels last.
        node: a padding with a constant.

    Returns:
        Whether it is one, and was rewritten.
    """
    source, amounts = node.args[0], [int(amount) for amount in node.args[1]]  # type: ignore[union-attr, arg-type]
    assert isinstance(source, Node)
    shape, call = shape_of(source), model.graph.call_function
    amounts += [0] * (2 * len(shape) - len(amounts))
    inner, columns, outer = amounts[:2], amounts[2:4], amounts[PADDED_AXES:]
    if len(shape) != 4 or any(inner) or any(outer) or not any(columns) or min(amounts) < 0:
        return False
    batch, height, width, channels = shape
    with model.graph.inserting_before(node):
        rows = call(aten.reshape.default, (source, [batch, height, width * channels]))
        around = [amount * channels for amount in columns] + amounts[4:PADDED_AXES]
        padded = call(aten.constant_pad_nd.default, (rows, around, argument(node, 2, "value", 0.0)))
        replace(node, call(aten.reshape.default, (padded, list(shape_of(node)))))
    return True


def _is_merged(node: Node) -> bool:
    """Whether only convolutions read zeros that were padded."""
    turned = [user for user in node.users if user.target is aten.permute.default and tuple(user.args[1]) == NCHW]  # type: ignore[arg-type]
    readers = [reader for user in turned for reader in user.users]
    whole = len(turned) == len(node.users) and all(reader.target is aten.conv2d.default for reader in readers)
    return whole and not argument(node, 2, "value", 0.0)
