"""Files on the units of a phone before they get their name: an emulated ARM core, a GPU and an NPU in software.

What these show is whether a unit computes the file rightly, and which operators it leaves to the CPU. They are no
phones: their times mean nothing and are not kept.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Artifact, Parity, UnitCheck
from mobilezoo.errors import DeviceError, ExportError, MissingToolError, UnknownNameError
from mobilezoo.workflows.hooks import SILENT, Hooks

if TYPE_CHECKING:
    import numpy as np


UNITS = {"cpu": "cortex_a76", "gpu": "gpu_check", "npu": "npu_check"}
"""Unit → the device of configs/devices/ that stands for it."""
IMAGES = 4
"""Images that a unit computes; an emulated core takes seconds for each."""


class UnitChecks:
    """Runs files on units of a phone; a `UnitChecker` of an export.

    Files whose arithmetic this machine cannot show (half precision in LiteRT, whose kernels exist on ARM only) are
    always run on the emulated core where it is set up, and are refused where its answers are wrong.
    """

    def __init__(self, units: tuple[str, ...], hooks: Hooks = SILENT) -> None:
        """Take the units.

        Args:
            units: keys of UNITS that every file is run on.
            hooks: receives the unit under way.

        Raises:
            UnknownNameError: no such unit.
        """
        for unit in units:
            if unit not in UNITS:
                raise UnknownNameError("unit", unit, UNITS)
        self.units, self._hooks = units, hooks

    def __call__(
        self, path: Path, record: Artifact, images: "np.ndarray", reference: "np.ndarray"
    ) -> tuple[UnitCheck, ...]:
        """Run one file, see `UnitChecker`."""
        half = _is_half_on_arm(path, record)
        needed = ("cpu",) if half and "cpu" not in self.units else ()
        checks = []
        for unit in (*self.units, *needed):
            self._hooks.on_status(f"{record.model}: {record.target} {record.precision} on {unit}")
            checks.append(check_file(path, record, unit, images, reference))
        if half:
            _refuse_wrong(record, checks)
        return tuple(checks)


def check_file(
    path: Path, record: Artifact, unit: str, images: "np.ndarray | None", reference: "np.ndarray"
) -> UnitCheck:
    """Run a file on one unit and compare it with PyTorch.

    Args:
        path: the file.
        record: its record, which need not lie beside it yet.
        unit: a key of UNITS.
        images: (N, C, H, W) float32, preprocessed; the first IMAGES are computed. None: noise, as long as `reference`
            has rows, for files that take no image.
        reference: (N, classes) PyTorch's logits of `images`.
    """
    from mobilezoo_export.feeding import noise_answers
    from mobilezoo_export.parity import measure_parity
    from mobilezoo_export.tolerances import verdict
    from mobilezoo_latency.contract import ArtifactFile
    from mobilezoo_latency.registry import load_device

    artifact = ArtifactFile(path.resolve(), record)
    try:
        device = load_device(UNITS[unit]).for_artifact(artifact)
    except DeviceError as error:
        return UnitCheck(unit=unit, status="refused", reason=str(error))
    try:
        device.check()
    except (DeviceError, MissingToolError) as error:
        return UnitCheck(unit=unit, status="unavailable", reason=str(error))
    try:
        runner = device.open_runner(artifact)
        logits = noise_answers(runner, len(reference)) if images is None else runner.run(images[:IMAGES])
        reading = runner.reading()
    except (DeviceError, ExportError) as error:
        return UnitCheck(unit=unit, status="refused", reason=str(error))
    finally:
        device.close()
    half = runner.runtime_info().get("arithmetic", "half" if unit == "cpu" and _is_half_on_arm(path, record) else "")
    rule = _rule(record, half == "half")
    source = record.parity.inputs if record.parity else "given images" if images is not None else "noise"
    parity: Parity = measure_parity(
        reference[:IMAGES], logits, precision=rule, inputs=source, ran_in=runner.runtime, boxes=record.boxes
    )
    reason = verdict(parity, rule)
    return UnitCheck(
        unit=unit,
        status="failed" if reason else "passed",
        reason=reason or "",
        parity=parity,
        partitions=reading.partitions if reading else None,
        outside=dict(reading.outside) if reading and reading.outside is not None else None,
        notes=tuple(reading.notes) if reading else (),
    )


def _rule(record: Artifact, half: bool) -> str:
    """Name of the limits that a file's answers on a unit must keep."""
    if half and record.precision in ("fp32", "fp16", "fp16-weights", "unknown"):
        return "half arithmetic"
    # files of others do not declare theirs; half-precision weights are what float32 kernels often meet
    return "fp16-weights" if record.precision == "unknown" else record.precision


def _is_half_on_arm(path: Path, record: Artifact) -> bool:
    """Whether the emulated core computes a file in half precision, and this machine in float32."""
    from mobilezoo_export.registry import load_exporter
    from mobilezoo_latency.emulator.runtimes import RUNTIMES

    return record.target in RUNTIMES and load_exporter(record.target).is_half_on_arm(path)


def _refuse_wrong(record: Artifact, checks: list[UnitCheck]) -> None:
    """Raise ExportError for a half-precision file that is wrong on ARM, or fails there: nothing here would show it."""
    wrong = next((c for c in checks if c.unit == "cpu" and c.status in ("failed", "refused")), None)
    if wrong is not None:
        other = "fp32" if record.precision == "int8" else "fp16-weights"
        fails = "fails: " if wrong.status == "refused" else ""
        raise ExportError(
            f"{record.model}: the {record.target} {record.precision} file, in half arithmetic on an emulated core, "
            f"{fails}{wrong.reason}; it was not kept: {other} computes in float32"
        )
