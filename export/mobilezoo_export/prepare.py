"""Prepare a trained network for the exporters: copy, eval mode, fusing, tracing, graph passes."""

import copy
import dataclasses

import torch
from torch import nn
from torch.fx import GraphModule

from mobilezoo_export.flexible import FLEXIBLE_PASSES, check_graph, example_of, flexible_graph
from mobilezoo_export.records import ExportSpec
from mobilezoo_export.same_padding import settle_padding


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A network ready for any exporter."""

    graph: GraphModule
    zero_gammas: tuple[str, ...]
    changed: dict[str, int]
    """Graph pass → number of places it changed."""


def prepare(network: nn.Module, spec: ExportSpec) -> Prepared:
    """Copy, fuse, trace and rewrite a network; the given one is not changed.

    Args:
        network: takes float32 NCHW images, returns logits (N, classes).
        spec: input size and options of the file.

    Raises:
        ExportError: the network cannot be traced, or not at all sizes of a flexible file.
    """
    from mobilezoo.models.randomize import zero_gammas
    from mobilezoo_export.passes import COMMON, run_passes
    from mobilezoo_export.passes.graph import trace

    model = eval_copy(network)
    zeros = zero_gammas(model)
    example = torch.randn(spec.shape, generator=torch.Generator().manual_seed(0))
    model = _fused(model, example)
    settle_padding(model, spec)
    if spec.options.image or spec.options.softmax:
        from mobilezoo_export.io_wrappers import IOWrapper

        model = IOWrapper(model, spec)
    if spec.options.flexible != "none":
        graph = flexible_graph(model, spec)
        changed = run_passes(graph, example_of(spec), (*FLEXIBLE_PASSES, *spec.options.passes))
        check_graph(model, graph, spec)
        return Prepared(graph, zeros, changed)
    graph = trace(model, example)
    return Prepared(graph, zeros, run_passes(graph, example, (*COMMON, *spec.options.passes)))


def eval_copy(network: nn.Module) -> nn.Module:
    """A float32 copy on the CPU in eval mode."""
    return copy.deepcopy(network).cpu().float().eval().requires_grad_(False)


def _fused(model: nn.Module, example: torch.Tensor) -> nn.Module:
    from mobilezoo.models.fuse import fuse

    return fuse(model, example)
