"""Files that take any batch size, any resolution, or both (`--set flexible=batch|resolution|both`).

The graph passes write sizes into the graph, so a flexible file comes from the folded network without them. ONNX alone:
LiteRT, Core ML and ExecuTorch files have one size each, which is also what phone accelerators want.
"""

from typing import Any

import torch
from torch import nn

from mobilezoo.errors import ExportError
from mobilezoo_export.contract import ExportSpec


def dynamic_axes(spec: ExportSpec) -> dict[int, Any]:
    """Axes of the NCHW input that may change, as `torch.export` wants them; empty for fixed files."""
    flexible, dynamic = spec.options.flexible, torch.export.Dim.DYNAMIC
    axes = {0: dynamic} if flexible in ("batch", "both") else {}
    return axes | ({2: dynamic, 3: dynamic} if flexible in ("resolution", "both") else {})


def program_of(model: nn.Module, spec: ExportSpec) -> torch.export.ExportedProgram:
    """The network as an exported program, with the axes of the spec left open. Raises ExportError."""
    axes = dynamic_axes(spec)
    # Tracing takes a size of one for a constant.
    example = torch.zeros(max(2, spec.batch) if 0 in axes else spec.batch, *spec.shape[1:])
    try:
        return torch.export.export(model, (example,), dynamic_shapes=(axes,) if axes else None)
    except Exception as error:
        if not axes:
            raise
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{spec.model} cannot take other sizes (flexible={spec.options.flexible}): {first[:200]}: "
            "export one file per size instead"
        ) from error


def other_shapes(spec: ExportSpec) -> list[tuple[int, int, int, int]]:
    """Input shapes besides the spec's own that a flexible file has to bear."""
    axes = dynamic_axes(spec)
    batch, channels, height, width = spec.shape
    shapes = [(batch + 2, channels, height, width)] if 0 in axes else []
    return shapes + ([(batch, channels, height + 32, width + 64)] if 2 in axes else [])
