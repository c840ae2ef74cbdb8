"""Files that take other batch sizes, other resolutions, or both (`flexible=batch|resolution|both`).

Sizes move within bounds, which ExecuTorch plans its memory by and Core ML declares: batches from 1 to 16, rows and
columns from half to double the model's own. Resolutions move in steps of 32 pixels, which every stage of a mobile
network halves evenly: attention's tokens and "same" padding then have sizes that `torch.export` can prove.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.pixels import to_pixels
from mobilezoo_export.records import ExportSpec
from mobilezoo_export.tolerances import verdict

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LARGEST_BATCH = 16
STEP_PX = 32
FLEXIBLE_PASSES = ("open_sizes", "batchnorm", "groupnorm")
"""Passes that write no sizes into a graph."""


def bounds(spec: ExportSpec) -> dict[int, range]:
    """Return {axis: sizes} for the open axes of the NCHW input; empty for fixed files."""
    flexible, found = spec.options.flexible, {}
    if flexible in ("batch", "both"):
        found[0] = range(1, max(LARGEST_BATCH, 2 * spec.batch) + 1)
    if flexible in ("resolution", "both"):
        step = math.gcd(STEP_PX, *spec.resolution)
        # A size of one is special in PyTorch: the smallest has to be a few steps.
        while step > 1 and step > min(spec.resolution) // 4:
            step //= 2
        for axis, size in zip((2, 3), spec.resolution, strict=True):
            found[axis] = range(-(-size // (2 * step)) * step, 2 * size + 1, step)
    return found


def example_of(spec: ExportSpec) -> torch.Tensor:
    """Return zeros to trace with, in the NCHW shape of the spec.

    Open axes have sizes unlike one, each other and most layer widths: tracing takes a size of one for a constant, and
    ExecuTorch takes equal sizes for the same axis (a batch of 16 where a map had 16 rows).
    """
    limits, places = bounds(spec), {0: -4, 2: -1, 3: -2}
    return torch.zeros([limits[axis][places[axis]] if axis in limits else size for axis, size in enumerate(spec.shape)])


def dynamic_shapes(spec: ExportSpec) -> Any:
    """Return the open axes in the form of `torch.export`'s `dynamic_shapes`; None for fixed files."""
    axes = {}
    for axis, sizes in bounds(spec).items():
        steps = torch.export.Dim(f"steps_{axis}", min=sizes[0] // sizes.step, max=sizes[-1] // sizes.step)
        axes[axis] = steps if sizes.step == 1 else sizes.step * steps
    return (axes,) if axes else None


def program_of(model: nn.Module, spec: ExportSpec) -> "ExportedProgram":
    """Trace a network with the open axes of the spec.

    Args:
        model: network in eval mode that takes `spec.shape`.
        spec: input size and `flexible` option.

    Raises:
        ExportError: the network does not work at all sizes of the open axes.
    """
    shapes = dynamic_shapes(spec)
    try:
        return torch.export.export(model, (example_of(spec),), dynamic_shapes=shapes)
    except Exception as error:
        if not shapes:
            raise
        # Violated constraints are listed below a headline without content.
        constraints = [line.strip()[2:] for line in str(error).splitlines() if line.strip().startswith("- ")]
        reason = constraints[0] if constraints else first_line(error)
        raise ExportError(
            f"{spec.model} cannot take other sizes (flexible={spec.options.flexible}): {reason[:250]}: "
            "export one file per size instead"
        ) from error


def flexible_graph(model: nn.Module, spec: ExportSpec) -> GraphModule:
    """Trace a network to a flat functional graph that computes its sizes.

    Args:
        model: network in eval mode that takes `spec.shape`.
        spec: input size and `flexible` option.

    Raises:
        ExportError: the network does not work at all sizes of the open axes.
    """
    graph = program_of(model, spec).run_decompositions({}).module(check_guards=False)
    assert isinstance(graph, GraphModule)
    # They compare inputs with the nodes' sizes, which graph passes overwrite by those of one example.
    graph._forward_pre_hooks.clear()
    return graph


def other_specs(spec: ExportSpec) -> list[ExportSpec]:
    """Return specs of the same file at other sizes, among them the extremes of each open axis; none for fixed files."""
    limits = bounds(spec)
    if not limits:
        return []
    rows, columns = (limits.get(axis, [size]) for axis, size in zip((2, 3), spec.resolution, strict=True))
    batch = spec.batch + 2 if 0 in limits else spec.batch
    wide = {"batch": batch, "resolution": (rows[0], columns[-1])}
    tall = {"batch": spec.batch, "resolution": (rows[-1], columns[0])}
    return [spec.model_copy(update=update) for update in ((wide, tall) if 2 in limits else (wide,))]


def check_other_sizes(model: nn.Module, spec: ExportSpec, exporter: Exporter, runner: Runner) -> None:
    """Compare a flexible file with the network at sizes that it was not traced with.

    Args:
        model: the prepared network, the reference.
        spec: input, precision and options of the file.
        exporter: the file's target.
        runner: the loaded file; its `input` is changed.

    Raises:
        ExportError: the file does not run at another size, or is out of tolerance there.
    """
    for other in other_specs(spec):
        images = sample_images(other, 4 * other.batch)
        runner.input = exporter.input_spec(other)
        try:
            logits = runner.run(images)
        except (RuntimeError, ValueError) as error:
            reason: str | None = f"does not run ({first_line(error, 200)})"
        else:
            reference = run_in_batches(model, images, other)
            parity = measure_parity(
                reference, logits, precision=spec.precision, inputs="sample", ran_in=exporter.target
            )
            reason = verdict(parity, spec.precision)
        if reason:
            raise ExportError(
                f"{spec.model}: at input {other.shape} the {exporter.target} {spec.precision} file {reason}: "
                "export one file per size instead"
            )


def check_graph(model: nn.Module, graph: nn.Module, spec: ExportSpec) -> None:
    """Compare a traced graph with its network at sizes that it was not traced with.

    Args:
        model: the network, the reference.
        graph: the graph traced from it.
        spec: input size and `flexible` option; nothing is compared for fixed files.

    Raises:
        ExportError: the graph is out of tolerance at another size.
    """
    for other in other_specs(spec):
        images = sample_images(other, other.batch)
        expected = run_in_batches(model, images, other)
        parity = measure_parity(
            expected, run_in_batches(graph, images, other), precision="fp32", inputs="sample", ran_in="PyTorch"
        )
        if reason := verdict(parity, "fp32"):
            raise ExportError(f"{spec.model} cannot take other sizes: at input {other.shape} its graph {reason}")


@torch.no_grad()
def run_in_batches(model: nn.Module, images: np.ndarray, spec: ExportSpec) -> np.ndarray:
    """Run a prepared network in batches of `spec.batch`.

    Args:
        model: a prepared network.
        images: normalized float32 NCHW images; converted to pixels for networks with the option `image`.
        spec: batch size, preprocessing and options.

    Returns:
        Outputs (images, classes).
    """
    if spec.options.image:
        images = to_pixels(images, spec.preprocessing).astype(np.float32)
    return torch.cat([model(piece) for piece in torch.from_numpy(images).split(spec.batch)]).numpy()
