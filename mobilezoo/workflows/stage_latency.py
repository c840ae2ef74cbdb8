"""Where a phone's time goes, stage by stage: counted on an emulated core, never timed.

The network is exported once. The operators of the LiteRT file are divided among the stages by their multiply-adds,
and files that end with each stage in turn are counted: the difference of two is the price of a stage, and all prices
add up to the whole.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, ExportError
from mobilezoo.scratch import temporary_folder
from mobilezoo.workflows.hooks import SILENT, Hooks

if TYPE_CHECKING:
    from mobilezoo.latency_report import Counts
    from mobilezoo_latency.contract import ArtifactFile
    from mobilezoo_latency.emulator.device import EmulatedDevice

TOLERANCE = 1e-3
"""Multiply-adds that may lie on the wrong side of a border between stages, as a share of the whole network's."""


class StagePrice(Record):
    """What some stages in a row cost; several where one has no operators of its own."""

    first: int
    last: int
    """Rows of the stage table."""
    value: float
    """In the unit of `StagePrices`."""
    share: float
    """Of the whole, 0..1."""


class StagePrices(Record):
    """A network on one emulated core, stage by stage."""

    device: str
    runtime: str
    precision: str = "fp32"
    unit: str
    """`ms` for a calibrated core, else `M cycles`."""
    whole: float
    error_percent: float | None = None
    """Mean absolute error of a whole network's milliseconds; None for cycles."""
    basis: str | None = None
    """What the error rests on."""
    stages: tuple[StagePrice, ...]

    @property
    def heading(self) -> str:
        """Of a column of prices."""
        return "predicted time" if self.unit == "ms" else "predicted cycles"


def price_stages(
    model: str, overrides: tuple[str, ...], table: Mapping[str, Any], device: str, hooks: Hooks = SILENT
) -> StagePrices:
    """Count a network stage by stage on an emulated core, as a LiteRT fp32 file with random weights.

    Args:
        model: name, YAML or `timm:NAME`.
        overrides: dotted `KEY=VALUE` changes of its config.
        table: what `stage_table` gives for the two.
        device: an emulated core, by name or YAML.
        hooks: receives messages and progress.

    Raises:
        DeviceError: the device is no emulated core, or not set up.
        ExportError: the network cannot be exported, or no operators of its file end where its stages do.
    """
    core = _emulated(device)
    core.check()
    with temporary_folder("stages") as folder:
        whole, macs = _exported(model, overrides, table, folder, hooks)
        groups, borders = stage_borders(operator_macs(whole.path), macs, table["name"])
        counts = [
            _counted(core, whole, border, folder) for border in hooks.track(borders, "counting stages", len(borders))
        ]
    return _prices(core, groups, counts)


def stage_borders(
    operators: Sequence[float], stages: Sequence[float], name: str
) -> tuple[list[tuple[int, int]], list[int]]:
    """Divide the operators of a file among stages.

    Operators without multiply-adds belong to the stage before them, and stages without any to the one before.

    Args:
        operators: multiply-adds of each operator, in running order.
        stages: multiply-adds of each stage, in running order.
        name: the network's, for messages.

    Returns:
        First and last stage of each group, and the number of operators up to its end.

    Raises:
        ExportError: no border between operators lies where a stage ends.
    """
    costly = [number for number, macs in enumerate(stages) if macs > 0]
    whole, reached = sum(stages), list(accumulate(operators))
    groups, borders, end = list[tuple[int, int]](), list[int](), 0.0
    for number, following in pairwise([*costly, len(stages)]):
        end += stages[number]
        nearest = min(range(len(reached)), key=lambda i: (abs(reached[i] - end), -i), default=0)
        if not reached or abs(reached[nearest] - end) > TOLERANCE * whole or nearest + 1 <= (borders or [0])[-1]:
            raise ExportError(
                f"{name}: the operators of its LiteRT file cannot be told apart by stage (none ends at "
                f"{end / 1e6:.2f} M of {whole / 1e6:.2f} M multiply-adds): `mobilezoo profile {name} --ops` shows "
                "the operators themselves"
            )
        groups.append((number if groups else 0, following - 1))
        borders.append(nearest + 1)
    return groups, [*borders[:-1], len(operators)]  # what follows the last multiply-add belongs to the last stage


def operator_macs(path: Path) -> list[float]:
    """Multiply-adds of each operator of a LiteRT file. Raises DeviceError."""
    from mobilezoo_latency.estimators.kernels import kernels_of

    return [kernel.macs for kernel in kernels_of(path)]


def _emulated(device: str) -> "EmulatedDevice":
    from mobilezoo_latency import load_device
    from mobilezoo_latency.emulator.device import EmulatedDevice

    core = load_device(device)
    if not isinstance(core, EmulatedDevice):
        raise DeviceError(
            f"--device {device!r} is no emulated core: stages are differences of exact counts (cortex_a76, cortex_a55, "
            "...); `mobilezoo profile --ops` times operators on this machine"
        )
    return core


def _exported(
    model: str, overrides: tuple[str, ...], table: Mapping[str, Any], folder: Path, hooks: Hooks
) -> "tuple[ArtifactFile, list[float]]":
    """The file, and the multiply-adds of every row of the table as the file computes it: branches fused."""
    import torch

    from mobilezoo.models import load_model_config
    from mobilezoo.models.fuse import fuse
    from mobilezoo.models.macs import count_stages
    from mobilezoo.workflows.export import export_network
    from mobilezoo.workflows.load_model import with_random_weights
    from mobilezoo.workflows.profile import SEED
    from mobilezoo_export import ExportConfig
    from mobilezoo_latency.contract import load_artifact

    torch.manual_seed(SEED)
    config = load_model_config(model, overrides)
    loaded = with_random_weights(config, config.resolution)
    wanted = ExportConfig(targets=("litert",), precisions=("fp32",))
    (result,) = export_network(loaded, wanted, folder, isolate=False, hooks=hooks)
    if result.path is None:
        raise ExportError(f"{config.name}: litert fp32 {result.status}: {result.reason}")
    fused = fuse(loaded.network, torch.zeros(1, loaded.in_chans, *loaded.resolution))
    rows = {row["stage"]: float(row["macs"]) for row in count_stages(fused, loaded.resolution)}
    return load_artifact(result.path), [rows.get(stage["stage"], 0.0) for stage in table["stages"]]


def _counted(core: "EmulatedDevice", whole: "ArtifactFile", operators: int, folder: Path) -> "Counts":
    from mobilezoo_export.litert_prefix import write_prefix
    from mobilezoo_latency.contract import ArtifactFile
    from mobilezoo_latency.emulator.layout import find_emulator

    part = folder / f"first-{operators}.tflite"
    write_prefix(whole.path, operators, part)
    try:
        return core.count(find_emulator(), ArtifactFile(part, whole.record))
    finally:
        part.unlink()


def _prices(core: "EmulatedDevice", groups: Sequence[tuple[int, int]], counts: "Sequence[Counts]") -> StagePrices:
    from mobilezoo_latency.emulator.layout import find_emulator

    estimates = [core.estimate(count, find_emulator().installed.llvm) for count in counts]
    known = [estimate for estimate in estimates if estimate is not None]
    reached = [estimate.latency_ms for estimate in known] or [count.cycles / 1e6 for count in counts]
    prices = [after - before for before, after in pairwise([0.0, *reached])]
    return StagePrices(
        device=core.config.name,
        runtime=core.describe().runtime,
        unit="ms" if known else "M cycles",
        whole=reached[-1],
        error_percent=known[-1].error_percent if known else None,
        basis=known[-1].basis if known else None,
        stages=tuple(
            StagePrice(first=first, last=last, value=price, share=price / reached[-1])
            for (first, last), price in zip(groups, prices, strict=True)
        ),
    )
