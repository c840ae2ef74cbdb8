"""Fold inference BatchNorm into the convolution or linear layer before it; otherwise write it as mul and add."""

import operator

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, constant, replace, shape_of

BATCH_NORM = aten._native_batch_norm_legit_no_training.default
FOLDABLE = (aten.conv2d.default, aten.conv1d.default, aten.linear.default)


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, BATCH_NORM):
        factors = _scale_and_shift(model, node)
        users = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
        if factors is None or len(users) != len(node.users):
            continue
        source = node.args[0]
        assert isinstance(source, Node)
        with model.graph.inserting_before(node):
            new = _folded(model, source, *factors) or _affine(model, node, *factors)
        for user in users:
            replace(user, new)
        model.graph.erase_node(node)
        changed += 1
    return changed


def _scale_and_shift(model: GraphModule, node: Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """y = x * scale + shift, computed in double precision."""
    mean, variance = (constant(model, node.args[index]) for index in (3, 4))
    if mean is None or variance is None:
        return None
    scale = (variance.double() + float(node.args[6])).rsqrt()  # type: ignore[arg-type]
    weight, bias = (constant(model, node.args[index]) for index in (1, 2))
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _folded(model: GraphModule, source: Node, scale: torch.Tensor, shift: torch.Tensor) -> Node | None:
    if source.target not in FOLDABLE or len(source.users) != 1:
        return None
    weight = constant(model, source.args[1])
    bias_node = argument(source, 2, "bias")
    bias = constant(model, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return None
    new_weight = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    new_bias = shift if bias is None else shift + bias.double() * scale
    arguments = (
        source.args[0],
        add_constant(model, new_weight.float(), "folded_weight"),
        add_constant(model, new_bias.float(), "folded_bias"),
        *source.args[3:],
    )
    kwargs = {key: value for key, value in source.kwargs.items() if key != "bias"}
    return model.graph.call_function(source.target, arguments, kwargs)


def _affine(model: GraphModule, node: Node, scale: torch.Tensor, shift: torch.Tensor) -> Node:
    assert isinstance(node.args[0], Node)
    channels_first = (-1, *[1] * (len(shape_of(node.args[0])) - 2))
    factor = add_constant(model, scale.float().reshape(channels_first), "norm_scale")
    offset = add_constant(model, shift.float().reshape(channels_first), "norm_shift")
    scaled = model.graph.call_function(aten.mul.Tensor, (node.args[0], factor))
    return model.graph.call_function(aten.add.Tensor, (scaled, offset))
