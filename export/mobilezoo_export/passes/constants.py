"""What does not depend on the image is computed once, here: position encodings, window masks, gathered biases.

Converters fold some of it; the rest would run on the phone for every image, in operators that no delegate takes
(EdgeNeXt's Fourier positions cut a LiteRT file into four partitions).
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from mobilezoo_export.passes.graph import add_constant, constant, replace

LARGEST = 1 << 22
"""Elements of a result that is still stored; larger ones are cheaper computed than shipped."""
HELD = 1 << 26
"""Elements of a value on the way to one."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    values: dict[Node, torch.Tensor] = {}
    for node in model.graph.nodes:
        value = constant(model, node) if node.op == "get_attr" else _computed(node, values)
        if isinstance(value, torch.Tensor):
            values[node] = value
    for node in reversed(list(values)):  # what is too large to ship leaves the values it is made of
        if values[node].numel() > LARGEST and any(user not in values for user in node.users):
            del values[node]
    changed = 0
    for node, value in values.items():
        if node.op == "call_function" and any(user not in values for user in node.users):
            with model.graph.inserting_before(node):
                replace(node, add_constant(model, value.clone(), "folded"))
            changed += 1
    return changed


def _computed(node: Node, values: dict[Node, torch.Tensor]) -> Any:
    """The node's value where all that it reads is known, else None."""
    if node.op != "call_function" or not all(source in values for source in node.all_input_nodes):
        return None
    tags = getattr(node.target, "tags", ())
    expected = node.meta.get("val")
    if torch.Tag.nondeterministic_seeded in tags or not isinstance(expected, torch.Tensor):
        return None
    if expected.numel() > HELD:
        return None

    def known(source: Node) -> Any:
        return values[source]

    args: Any = map_arg(node.args, known)
    kwargs: Any = map_arg(node.kwargs, known)
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]
