"""GroupNorm with one group, in operators that every mobile delegate has and without leaving four axes.

Mean over the map, then over channels as a 1 × 1 convolution with equal weights: XNNPACK takes global average pooling
and convolutions, but neither GroupNorm nor a mean over channels (SHViT-S1: 37 partitions in ExecuTorch).
"""

from collections.abc import Callable, Sequence

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, constant, replace, shape_of


def run(model: GraphModule) -> int:
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
    return normalized(
        model,
        node,
        source,
        lambda x: call(aten.conv2d.default, (call(aten.mean.dim, (x, [2, 3], True)), average)),
        (1, -1, 1, 1),
    )


def normalized(
    model: GraphModule, node: Node, source: Node, mean: Callable[[Node], Node], affine: Sequence[int]
) -> Node:
    """`source` centerd and scaled by a given mean, with weight, bias and epsilon of a group or layer norm `node`.

    `affine` is the shape in which weight and bias broadcast.
    """
    call = model.graph.call_function
    centerd = call(aten.sub.Tensor, (source, mean(source)))
    variance = mean(call(aten.mul.Tensor, (centerd, centerd)))
    epsilon = argument(node, 4, "eps", 1e-5)
    inverse = call(aten.rsqrt.default, (call(aten.add.Tensor, (variance, epsilon)),))
    weight, bias = (constant(model, argument(node, i, name)) for i, name in ((2, "weight"), (3, "bias")))
    if weight is not None:
        factor = add_constant(model, weight.reshape(*affine), "norm_weight")
        inverse = call(aten.mul.Tensor, (inverse, factor))
    new = call(aten.mul.Tensor, (centerd, inverse))
    if bias is not None:
        new = call(aten.add.Tensor, (new, add_constant(model, bias.reshape(*affine), "norm_bias")))
    return new
