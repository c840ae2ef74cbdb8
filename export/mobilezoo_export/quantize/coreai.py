"""Core AI: half precision, and int8 weights per output channel, written into the traced network before conversion."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from mobilezoo_export.quantize.mixed import float_positions

WEIGHTED = ("aten.conv2d.default", "aten.convolution.default", "aten.linear.default", "aten.bmm.default")
WITH_WEIGHTS = WEIGHTED[:3]
"""Their weights are stored as integers, output channels first."""
SMALLEST = 2048
"""Tensors of fewer values stay half, as in Core ML: depthwise filters lose most by int8 and save least."""
LARGEST_INT8 = 127


class HalfInside(nn.Module):
    """A network that computes in half precision, between a float32 input and a float32 output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.half())
        return logits.float()


def reduced(model: nn.Module, precision: str, float_segments: Sequence[int] = ()) -> nn.Module:
    """Return a copy of a traced network in another precision.

    Args:
        model: traced, folded graph.
        precision: fp16, or int8: weights of convolutions and linear layers as int8, everything else in half.
        float_segments: segments whose weights stay half, see `quantize.mixed`.
    """
    assert isinstance(model, GraphModule)
    graph = copy.deepcopy(model).half()
    for node in graph.graph.nodes:  # constants that the network makes itself
        if node.kwargs.get("dtype") == torch.float32:
            node.update_kwarg("dtype", torch.float16)
    if precision == "int8":
        _store_int8(graph, float_segments)
    graph.recompile()
    return HalfInside(graph)


def _store_int8(graph: GraphModule, float_segments: Sequence[int]) -> None:
    """Replace large weights by int8 values and scales, which the file's own operation multiplies."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    kept = float_positions([str(node.target) in WEIGHTED for node in nodes], float_segments)
    for position, node in enumerate(nodes):
        if str(node.target) in WITH_WEIGHTS and position not in kept:
            _store_weight(graph, node, node.args[1])


def _store_weight(graph: GraphModule, node: Node, source: object) -> None:
    from coreai_torch._compression import custom_layers  # noqa: F401  # registers torch.ops.coreai

    if not isinstance(source, Node) or source.op != "get_attr":
        return
    weight = _attribute(graph, str(source.target)).float()
    if weight.numel() < SMALLEST:
        return
    peaks = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
    scale = (peaks / LARGEST_INT8).clamp(min=torch.finfo(torch.float16).tiny).half()
    name = f"{str(source.target).replace('.', '_')}_of_{node.name}"
    graph.register_buffer(f"{name}_int8", (weight / scale.float()).round().clamp(-127, 127).to(torch.int8))
    graph.register_buffer(f"{name}_scale", scale)
    with graph.graph.inserting_before(node):
        parts = [graph.graph.get_attr(f"{name}_{part}") for part in ("int8", "scale")]
        dense = graph.graph.call_function(torch.ops.coreai.constexpr_blockwise_shift_scale.default, tuple(parts))
    node.update_arg(1, dense)


def _attribute(module: nn.Module, path: str) -> Tensor:
    *owners, name = path.split(".")
    found: Tensor = getattr(module.get_submodule(".".join(owners)), name)
    return found
