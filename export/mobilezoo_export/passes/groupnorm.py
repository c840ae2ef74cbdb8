"""GroupNorm with one group, in operators that every mobile delegate has and without leaving four axes.

Mean over the map, then over channels as a 1 × 1 convolution with equal weights: XNNPACK takes global average pooling
and convolutions, but neither GroupNorm nor a mean over channels (SHViT-S1: 37 partitions in ExecuTorch).
"""

from collections.abc import Callable, Sequence

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, constant, replace, shape_of


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.group_norm.default):
        source = node.args[0]
        assert isinstance(source, Node)
        if node.args[1] != 1 or len(shape_of(source)) != 4:
            continue
        with model.graph.inserting_before(node):
            new = _written_out(model, node, source, shape_of(source)[1])
        replace(node, new)
        changed += 1
    return changed


def _written_out(model: GraphModule, node: Node, source: Node, channels: int) -> Node:
    call = model.graph.call_function
    average = add_constant(model, torch.full((1, channels, 1, 1), 1.0 / channels), "channel_mean")
    batch, _, height, width = shape_of(source)

    def mean(x: Node) -> Node:
        if x.target is aten.mul.Tensor:  # XNNPACK makes one operator of square and mean, and has none in half precision
            x = call(aten.reshape.default, (x, [batch, channels, height * width, 1]))
        return call(aten.conv2d.default, (call(aten.mean.dim, (x, [2, 3], True)), average))

    return normalized(model, node, source, mean, (1, -1, 1, 1))


def normalized(
    model: GraphModule, node: Node, source: Node, mean: Callable[[Node], Node], affine: Sequence[int]
) -> Node:
    """Insert a normalization of `source`, written out with a given mean, at the graph's insertion point.

    Args:
        model: traced graph.
        node: group or layer norm whose weight, bias and epsilon are used.
        source: tensor to normalize.
        mean: inserts the mean of a node and returns its node.
        affine: shape in which weight and bias broadcast.

    Returns:
        The node of the result.
    """
    call = model.graph.call_function
    centered = call(aten.sub.Tensor, (source, mean(source)))
    variance = mean(call(aten.mul.Tensor, (centered, centered)))
    epsilon = argument(node, 4, "eps", 1e-5)
    inverse = call(aten.rsqrt.default, (call(aten.add.Tensor, (variance, epsilon)),))
    weight, bias = (constant(model, argument(node, i, name)) for i, name in ((2, "weight"), (3, "bias")))
    if weight is not None:
        factor = add_constant(model, weight.reshape(*affine), "norm_weight")
        inverse = call(aten.mul.Tensor, (inverse, factor))
    new = call(aten.mul.Tensor, (centered, inverse))
    if bias is not None:
        new = call(aten.add.Tensor, (new, add_constant(model, bias.reshape(*affine), "norm_bias")))
    return new
