"""ELU, CELU and SELU without a choice between two values: relu(x) + exp(min(x, 0)) - 1.

LiteRT's converter writes ELU as a comparison and a selection, which XNNPACK refuses (the linear attention of CARE and
RAVLT makes its queries and keys positive by ELU + 1: two cuts per block). The 1 that such attention adds cancels, which
also spares values near 0 the difference of two nearly equal numbers.
"""

from typing import NamedTuple

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace


class Factors(NamedTuple):
    """scale · (relu(x) + alpha · (exp(rate · min(x, 0)) - 1))."""

    alpha: float = 1.0
    scale: float = 1.0
    rate: float = 1.0


SELU = Factors(1.6732632423543772, 1.0507009873554805)
"""Klambauer et al., "Self-Normalizing Neural Networks", arXiv:1706.02515, section 2."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.elu.default, aten.celu.default, aten.selu.default):
        factors = _factors(node)
        addition = _added_one(node) if factors.alpha == factors.scale == 1.0 else None
        with model.graph.inserting_before(node):
            call = model.graph.call_function
            falling = call(aten.clamp.default, (node.args[0], None, 0.0))
            curve = call(aten.exp.default, (_times(model, falling, factors.rate),))
            if addition is None:
                curve = _times(model, call(aten.sub.Tensor, (curve, 1.0)), factors.alpha)
            whole = call(aten.add.Tensor, (call(aten.relu.default, (node.args[0],)), curve))
            new = _times(model, whole, factors.scale)
        replace(addition or node, new)
        if addition is not None:
            model.graph.erase_node(node)
        changed += 1
    return changed


def _factors(node: Node) -> Factors:
    if node.target is aten.selu.default:
        return SELU
    alpha = float(argument(node, 1, "alpha", 1.0))
    if node.target is aten.celu.default:
        return Factors(alpha, rate=1.0 / alpha)
    return Factors(alpha, float(argument(node, 2, "scale", 1.0)), float(argument(node, 3, "input_scale", 1.0)))


def _added_one(node: Node) -> Node | None:
    """The addition of 1 that is the only use of a node, if so."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    return user if user.target is aten.add.Tensor and user.args == (node, 1.0) and not user.kwargs else None


def _times(model: GraphModule, x: Node, factor: float) -> Node:
    return x if factor == 1.0 else model.graph.call_function(aten.mul.Tensor, (x, factor))
