"""Which layers leave half precision's range, and what is done about a file that has such layers.

IEEE half precision holds magnitudes up to 65504; a larger activation becomes infinite, and the logits NaN. Kernels that
also add up in half precision pass through partial sums that may be larger than the result, hence the margin.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo_export.records import ExportSpec

LARGEST = 65504.0
MARGIN = 2.0
"""How many times larger a partial sum may be than its result."""


def beyond_half(model: "nn.Module", images: np.ndarray, batch: int = 1) -> tuple[str, ...]:
    """Names of the layers, in order, whose values do not fit into half precision.

    Args:
        model: traced network that takes `batch` images.
        images: (N, C, H, W) float32, preprocessed; the range of values is that of these images.
        batch: batch size that the network was traced with.

    Returns:
        `layer (operator) reaches VALUE` of each layer beyond LARGEST / MARGIN.
    """
    peaks = _peaks(model, images, batch)
    return tuple(f"{name} reaches {peak:.3g}" for name, peak in peaks.items() if peak > LARGEST / MARGIN)


def fed_to_graph(images: np.ndarray, spec: "ExportSpec") -> np.ndarray:
    """Return normalized images as the traced network takes them: pixel values where the file takes an image.

    Args:
        images: (N, C, H, W) float32, preprocessed.
        spec: the file to be made.
    """
    if not spec.options.image:
        return images
    from mobilezoo_export.pixels import to_pixels

    return to_pixels(images, spec.preprocessing).astype(np.float32)


def half_exceeded(spec: "ExportSpec") -> str:
    """Which layers half precision cannot hold, in words."""
    first, more = spec.beyond_half[0], len(spec.beyond_half) - 1
    others = f" and {more} more" if more else ""
    return f"{first}{others}, half precision ends at {LARGEST:.0f}"


def _peaks(model: "nn.Module", images: np.ndarray, batch: int) -> dict[str, float]:
    """Largest magnitude of every float tensor that the traced network computes, by layer."""
    import torch
    from torch.fx import GraphModule, Interpreter, Node

    from mobilezoo_export.feeding import pieces
    from mobilezoo_export.passes.graph import name_of

    peaks: dict[str, float] = {}

    class Watched(Interpreter):
        def run_node(self, node: Node) -> Any:
            value = super().run_node(node)
            if node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point():
                name, peak = name_of(node), float(value.abs().max()) if value.numel() else 0.0
                peaks[name] = max(peaks.get(name, 0.0), math.inf if math.isnan(peak) else peak)
            return value

    assert isinstance(model, GraphModule)
    with torch.no_grad():
        for piece, _ in pieces(images, batch):  # filled up: images that are fewer than a batch are looked at, too
            Watched(model).run(torch.from_numpy(piece))
    return peaks
