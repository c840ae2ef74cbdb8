"""Find the layer where an exported file begins to diverge from PyTorch: `mobilezoo export … --bisect`.

The prepared network is truncated after one of its layers, exported and run like a whole network, and its output
compared with PyTorch's. Halving the list of layers finds the first whose output diverges in about seven exports.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule, Node

from mobilezoo.config import Record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.convert import convert
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.passes.graph import name_of
from mobilezoo_export.prepare import prepare
from mobilezoo_export.quantize.calibration import too_few
from mobilezoo_export.records import ExportSpec
from mobilezoo_export.registry import load_exporter
from mobilezoo_export.tolerances import verdict

IMAGES = 4
"""Each probe compares so many images."""


class Finding(Record):
    """How far a file agrees with PyTorch."""

    target: str
    precision: str
    layers: int
    """Layers that could be cut after."""
    probes: int
    layer: str | None
    """The first layer whose output diverges, `module (operator)`; None where the whole network agrees."""
    reason: str = ""
    """How that layer's output diverges."""
    last_good: str | None = None
    """The layer before it."""


def bisect(
    network: nn.Module,
    spec: ExportSpec,
    target: str,
    images: np.ndarray,
    calibration: Sequence[np.ndarray] = (),
    progress: Callable[[str], None] | None = None,
) -> Finding:
    """Find the first layer whose output diverges from PyTorch beyond the precision's tolerance.

    Assumes that a divergence lasts to the end, as errors do; a layer that the target refuses counts as diverged.

    Args:
        network: takes float32 NCHW images.
        spec: input, precision and options of the file.
        target: an export target.
        images: float32 NCHW, preprocessed; the first IMAGES of them are compared.
        calibration: float32 NCHW batches for precisions that need them.
        progress: called with a line of text before each probe.

    Raises:
        ExportError: the network cannot be traced.
        MissingToolError: the target's toolchain is not installed.
    """
    exporter = load_exporter(target)
    exporter.require()
    if spec.precision in exporter.calibrated and (reason := too_few(calibration, spec)):
        raise ExportError(reason)
    graph = prepare(network, spec).graph
    layers = cut_points(graph)
    spec = spec.model_copy(update={"options": spec.options.model_copy(update={"image": False, "softmax": False})})
    reasons: dict[int, str] = {}
    good, bad, probes = -1, len(layers), 0
    low, high = 0, len(layers) - 1
    while low <= high:
        middle = high if probes == 0 else (low + high) // 2  # the whole network first
        if progress:
            progress(f"{target} {spec.precision}: cut after {name_of(layers[middle])}")
        probes += 1
        reason = _divergence(graph, layers[middle], spec, target, images[:IMAGES], calibration)
        if reason is None:
            good, low = max(good, middle), middle + 1
        else:
            bad, high = middle, middle - 1
            reasons[middle] = reason
    found = bad < len(layers)
    return Finding(
        target=target,
        precision=spec.precision,
        layers=len(layers),
        probes=probes,
        layer=name_of(layers[bad]) if found else None,
        reason=reasons.get(bad, ""),
        last_good=name_of(layers[good]) if found and good >= 0 else None,
    )


def cut_points(graph: GraphModule) -> list[Node]:
    """Nodes whose value is one float tensor per image, in order."""
    batch = next(node for node in graph.graph.nodes if node.op == "placeholder").meta["val"].shape[0]
    return [node for node in graph.graph.nodes if node.op == "call_function" and _is_map(node, batch)]


def truncate_at(graph: GraphModule, node: Node) -> GraphModule:
    """Copy the network up to and including one node.

    Args:
        graph: traced network with shapes in `node.meta["val"]`.
        node: last node of the copy; its value is a float tensor of at least two axes, the first of them the batch.

    Returns:
        A graph that returns the node's value as (batch, values).
    """
    cut = copy.deepcopy(graph)
    last = next(n for n in cut.graph.nodes if n.name == node.name)
    old = next(n for n in cut.graph.nodes if n.op == "output")
    with cut.graph.inserting_before(old):
        flat = cut.graph.call_function(torch.ops.aten.reshape.default, (last, [node.meta["val"].shape[0], -1]))
        # the wrapper of torch.export's modules packs its outputs as the old output did
        cut.graph.output(flat if not isinstance(old.args[0], list | tuple) else type(old.args[0])([flat]))
    cut.graph.erase_node(old)
    cut.graph.eliminate_dead_code()
    cut.recompile()
    return cut


def _is_map(node: Node, batch: int) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    return value.dim() >= 2 and value.shape[0] == batch


def _divergence(
    graph: GraphModule,
    node: Node,
    spec: ExportSpec,
    target: str,
    images: np.ndarray,
    calibration: Sequence[np.ndarray],
) -> str | None:
    """Return why the truncated network's file differs from PyTorch, or None if it agrees."""
    cut = truncate_at(graph, node)
    with torch.no_grad():
        pieces = [cut(torch.from_numpy(images[i : i + spec.batch])) for i in range(0, len(images), spec.batch)]
    reference = np.concatenate([(p[0] if isinstance(p, list | tuple) else p).numpy() for p in pieces])
    with temporary_folder("bisect") as folder:
        path = folder / f"truncated{load_exporter(target).suffix}"
        try:
            _, values = convert(cut, target, spec, path, images, calibration)
        except MobilezooError as error:
            return str(error)
    if values is None:
        return f"{target} files cannot be run on this machine"
    flat = values.reshape(len(images), -1)
    parity = measure_parity(reference, flat, precision=spec.precision, inputs="", ran_in=target)
    return verdict(parity, spec.precision)
