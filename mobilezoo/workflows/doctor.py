"""`mobilezoo doctor`: what a file of any maker holds, which units take it, where its time goes, and what would help.

Each part runs by itself, in processes of its own where a runtime is involved: one that fails is a line, and the others
still answer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from mobilezoo.artifacts import Artifact, has_record, load_record_of
from mobilezoo.doctor_report import (
    Anatomy,
    CoreCounts,
    DoctorReport,
    HostTimes,
    OperatorShare,
    Part,
    UnitStatus,
    UnitVerdict,
)
from mobilezoo.errors import (
    ConfigError,
    DeviceError,
    ExportError,
    MissingToolError,
    MobilezooError,
    UnknownNameError,
    existing_path,
    first_line,
)
from mobilezoo.files import sha256_of, size_of
from mobilezoo.scratch import temporary_folder
from mobilezoo.workers import within
from mobilezoo.workflows.check_units import UNITS
from mobilezoo.workflows.doctor_conditions import failing, parse_conditions
from mobilezoo.workflows.doctor_inputs import DoctorInputs, inputs_for
from mobilezoo.workflows.doctor_remedies import all_findings
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import described, file_to_time

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
CORE = UNITS["cpu"]
SLOWEST = 8
LIMIT_S = 300.0
"""Of a unit, on a busy machine: emulated ones take seconds for an image of a small network, minutes of a large one."""
SLOW = ("time", "cycles")
"""Parts beside the units that may take long."""
ACTIVATIONS = "activations (static)"
"""Ends the words for a file whose activations are integers."""


@dataclass
class _Case:
    """One file, and what is known of it so far."""

    path: Path
    options: ModelOptions
    images: Path | None
    units: tuple[str, ...]
    folder: Path
    hooks: Hooks
    limit_s: float = LIMIT_S
    parts: list[Part] = field(default_factory=list)
    anatomy: Anatomy | None = None
    record: Artifact | None = None
    runnable: Path | None = None
    """The file, or a copy of it with a fixed size."""
    inputs: DoctorInputs | None = None
    reference: "np.ndarray | None" = None
    verdicts: list[UnitVerdict] = field(default_factory=list)

    def part(self, name: str, work: Callable[[], T]) -> T | None:
        """Do one part; what fails in it is its line."""
        self.hooks.on_status(f"{self.path.name}: {name}")
        begin = time.perf_counter()
        try:
            found = self._in_time(name, work)
        except _SkippedError as error:
            self._add(name, "skipped", str(error), begin)
        except MobilezooError as error:
            self._add(name, "failed", str(error), begin)
        except Exception as error:  # a file of others leads runtimes anywhere: the other parts still answer
            self._add(name, "failed", f"{type(error).__name__}: {first_line(error, 200)}", begin)
        else:
            self._add(name, "done", "", begin)
            return found
        return None

    def _in_time(self, name: str, work: Callable[[], T]) -> T:
        """Do one part; processes of the slow ones are ended at the limit. Raises _SkippedError where they were."""
        if name not in (*UNITS, *SLOW):
            return work()
        ends = time.monotonic() + self.limit_s
        too_long = f"it takes more than {self.limit_s:g} s here: --limit SECONDS waits longer"
        try:
            with within(self.limit_s):
                found = work()
        except MobilezooError:
            if time.monotonic() >= ends:
                raise _SkippedError(too_long) from None
            raise
        if isinstance(found, UnitVerdict) and found.status == "refused" and time.monotonic() >= ends:
            raise _SkippedError(too_long)
        return found

    def _add(self, name: str, status: Literal["done", "skipped", "failed"], reason: str, begin: float) -> None:
        line = " ".join(reason.split())
        self.parts.append(Part(name=name, status=status, reason=line, seconds=time.perf_counter() - begin))


class _SkippedError(Exception):
    """A part that does not apply, with the reason."""


def doctor(
    path: str | Path,
    options: ModelOptions = NO_OPTIONS,
    *,
    images: Path | None = None,
    units: tuple[str, ...] | None = tuple(UNITS),
    fail_on: str = "",
    limit_s: float = LIMIT_S,
    hooks: Hooks = SILENT,
) -> DoctorReport:
    """Look at an exported file of any maker.

    Args:
        path: a file of a known format; a record beside it is not needed.
        options: size and preprocessing of images where the file leaves them open.
        images: folder that the units compute images of; None: sample photographs, or noise.
        units: keys of UNITS that the file is run on; None: read the file and run nothing.
        limit_s: seconds after which a unit, the times or the cycles are given up, each.
        fail_on: conditions with commas between, see `parse_conditions`; those that hold are in `failed_on`.
        hooks: receives the part under way.

    Raises:
        MobilezooError: there is no such file, unit or condition, its suffix is unknown, or preprocessing was given
            for a file whose record has it.
    """
    from mobilezoo_export.registry import exporter_of

    file = existing_path(path, "file")
    target = exporter_of(file).target
    conditions = parse_conditions(fail_on)
    for unit in units or ():
        if unit not in UNITS:
            raise UnknownNameError("unit", unit, UNITS)
    given = [name for name in ("preprocess", "mean", "std") if getattr(options, name) is not None]
    if given and has_record(file):
        raise ConfigError(f"{file.name!r} has a record, which says how images become its input: leave --{given[0]} out")
    with temporary_folder("doctor") as folder:
        case = _Case(file, options, images, units or (), folder, hooks, limit_s)
        case.anatomy = case.part("graph", lambda: _anatomy(case))
        times = counts = None
        if units is not None:
            times, counts = _run(case)
        if case.record is None and has_record(file):
            case.record = case.part("record", lambda: load_record_of(Artifact, file))
    verdicts = (*case.verdicts, *(case.anatomy.rules if case.anatomy else ()))
    report = DoctorReport(
        path=str(path),
        sha256=sha256_of(file),
        size_bytes=size_of(file),
        target=target,
        inputs_from=case.inputs.name if case.inputs is not None and case.reference is not None else "",
        anatomy=case.anatomy,
        units=verdicts,
        times=times,
        counts=counts,
        findings=all_findings(case.anatomy, verdicts, case.record, size_of(file), target, file),
        parts=tuple(case.parts),
    )
    return report.model_copy(update={"failed_on": tuple(failing(conditions, report))})


def _run(case: _Case) -> tuple[HostTimes | None, CoreCounts | None]:
    """Everything that loads the file in a runtime."""
    verdict = case.part("xnnpack", lambda: _xnnpack(case))
    case.verdicts += [verdict] if verdict is not None else []
    case.runnable = case.part("host", lambda: _host(case))
    if case.runnable is None:
        reason = "the host's runtime does not run the file"
        case.parts += [Part(name=name, status="skipped", reason=reason) for name in (*case.units, "time", "cycles")]
        return None, None
    for unit in case.units:
        found = case.part(unit, partial(_unit, case, unit))
        case.verdicts += [found] if found is not None else []
    times = case.part("time", lambda: _times(case))
    if any(one.unit == "cpu" and one.status == "refused" for one in case.verdicts):
        case.parts.append(Part(name="cycles", status="skipped", reason="the emulated core does not take the file"))
        return times, None
    counts = case.part("cycles", lambda: _counts(case)) if "cpu" in case.units else None
    return times, counts


def _anatomy(case: _Case) -> Anatomy:
    from mobilezoo_export.apart import read_anatomy

    return read_anatomy(case.path)


def _xnnpack(case: _Case) -> UnitVerdict:
    """What XNNPACK takes, as the runtime here loads the file."""
    from mobilezoo_export.apart import read_coverage

    found = read_coverage(case.path)
    if found is None or found.partitions is None:
        raise _SkippedError(
            f"XNNPACK's share of {case.path.suffix} files is decided on the phone: export with --to litert"
        )
    outside = found.outside or {}
    status: UnitStatus = "none" if not found.partitions else "partly" if outside else "taken"
    return UnitVerdict(unit="xnnpack", how="run", status=status, partitions=found.partitions, outside=outside)


def _host(case: _Case) -> Path:
    """Run the file on this machine; the others are compared with its answers. Returns the file that was run."""
    import numpy as np

    from mobilezoo_export import FileApart, open_artifact

    size = ModelOptions(resolution=case.options.resolution)
    runnable = file_to_time(case.path, size, case.folder)
    record = open_artifact(runnable)
    if record.foreign and (case.options.preprocess or case.options.mean or case.options.std):
        record = described(runnable, case.options)
    case.record = record = _judged(record, case.anatomy)
    if "resolution" in record.undeclared:
        raise ExportError(
            f"{case.path.name!r} leaves the height or width of its input open: pass --resolution HEIGHTxWIDTH"
        )
    case.inputs = inputs = inputs_for(record, case.images)
    with FileApart(runnable, record.model_copy(update={"undeclared": ()})) as opened:
        found = opened.run_noise(inputs.count) if inputs.images is None else opened.run(inputs.images)
    if not np.isfinite(found).all():
        raise ExportError(f"it gives values that are not finite on {inputs.name}")
    case.reference = found
    return runnable


def _judged(record: Artifact, anatomy: Anatomy | None) -> Artifact:
    """The record with the precision that limits differences between units; files of others do not state theirs."""
    if not record.foreign or anatomy is None:
        return record
    if anatomy.scheme.endswith(ACTIVATIONS):
        return record.model_copy(update={"precision": "int8"})
    return record.model_copy(update={"precision": "fp32"}) if anatomy.scheme == "none: float32" else record


def _unit(case: _Case, unit: str) -> UnitVerdict:
    """What one unit answers to the inputs that the host computed."""
    from mobilezoo.workflows.check_exported import HOST, named_against
    from mobilezoo.workflows.check_units import check_file
    from mobilezoo_latency.contract import ArtifactFile
    from mobilezoo_latency.registry import load_device

    assert case.record is not None
    assert case.runnable is not None
    assert case.inputs is not None
    assert case.reference is not None
    try:
        load_device(UNITS[unit]).for_artifact(ArtifactFile(case.runnable.resolve(), case.record)).check()
    except (DeviceError, MissingToolError) as error:
        raise _SkippedError(str(error)) from None
    check = check_file(case.runnable, case.record, unit, case.inputs.images, case.reference)
    check = named_against(check, HOST)
    status = {"passed": "taken", "failed": "failed", "refused": "refused", "unavailable": "unavailable"}[check.status]
    if status == "taken" and (check.outside or (check.partitions or 1) > 1):
        status = "partly"
    return UnitVerdict.parse(
        {
            "unit": unit,
            "how": "run",
            "status": status,
            "reason": check.reason,
            "partitions": check.partitions,
            "outside": check.outside,
            "parity": check.parity.model_dump(mode="json") if check.parity else None,
            "against": HOST if check.parity else "",
            "notes": [note for note in check.notes if not note.startswith("compared with")],
        },
        unit,
    )


def _times(case: _Case) -> HostTimes:
    """Where the time goes on this machine."""
    from mobilezoo_export.registry import exporter_of
    from mobilezoo_latency import operators

    assert case.runnable is not None
    exporter = exporter_of(case.path)
    if exporter.target == "coreml":
        raise _SkippedError("Core ML files are timed on a Mac: `mobilezoo profile FILE --device mac`")
    if not exporter.has_operator_profiler():
        raise _SkippedError(f"files of {exporter.target!r} have no times by operator on this machine")
    found = operators.profile_operators(case.runnable)
    rows = [
        OperatorShare(type=kind, count=count, ms=ms, share=share)
        for kind, count, ms, share in operators.by_type(found.operators)
    ]
    top = sorted(found.operators, key=lambda one: -one.ms)[:SLOWEST]
    slowest = [
        OperatorShare(type=" ".join(filter(None, (one.type, one.shape, one.name))), count=1, ms=one.ms, share=one.share)
        for one in top
    ]
    return HostTimes(
        runtime=f"{found.runtime}; {found.how}",
        whole_ms=found.whole_ms,
        by_type=tuple(rows),
        slowest=tuple(slowest),
        advice=tuple(operators.advice(found.operators)),
    )


def _counts(case: _Case) -> CoreCounts:
    """What an emulated core executes; counted, not timed."""
    from mobilezoo_latency import profile
    from mobilezoo_latency.contract import ArtifactFile
    from mobilezoo_latency.registry import load_device

    assert case.runnable is not None
    assert case.record is not None
    try:
        load_device(CORE).for_artifact(ArtifactFile(case.runnable.resolve(), case.record)).check()
    except (DeviceError, MissingToolError) as error:
        raise _SkippedError(str(error)) from None
    found = profile(case.runnable, CORE, allow_folded=True)
    assert found.counts is not None
    known = found.estimate
    return CoreCounts(
        core=found.device.cpu or CORE,
        instructions=found.counts.instructions,
        cycles=found.counts.cycles,
        dram_lines=found.counts.dram_lines,
        estimated_ms=known.latency_ms if known else None,
        error=known.error_for(case.record.precision) if known else "",
        basis=known.basis if known else "",
    )
