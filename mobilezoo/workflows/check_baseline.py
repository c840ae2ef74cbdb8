"""`mobilezoo check`: whether new files are larger, slower, less delegated or wrong beside a baseline.

Size, operators, partitions, outputs and counted cycles are exact. Latency is the CPU's time, which other work on the
machine does not lengthen, taken in turns (A B B A), each slice by its fastest run; fresh pairs of processes vote
until one side leads by two: where a process lies in memory moves its time by a few percent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from mobilezoo.artifacts import Artifact, Coverage, load_record_of
from mobilezoo.check_report import CheckLimits, CheckReport, Compared, FileCheck
from mobilezoo.errors import ConfigError, DeviceError, MissingToolError, MobilezooError, existing_path
from mobilezoo.files import sha256_of, size_of
from mobilezoo.reading import read_json
from mobilezoo.workflows.check_units import UNITS
from mobilezoo.workflows.hooks import SILENT, Hooks

SNR_DB = {"fp32": 70.0, "fp16": 50.0, "fp16-weights": 50.0}
OTHER_SNR_DB = 40.0
"""Of quantized files: the same network and images give the same bytes, so that a difference is a change."""
SESSIONS, LEAD = 7, 2
"""Most fresh pairs of processes that vote, and by how many votes one side must lead."""
TURNS = 15


@dataclass(frozen=True)
class CheckOptions:
    """What is compared, and on what."""

    limits: CheckLimits = field(default_factory=CheckLimits)
    images: Path | None = None
    """Folder of images that outputs are compared on; None: sample photographs, or noise."""
    data: str | None = None
    """Labelled images for top-1."""
    classes: str | None = None
    latency: bool = True
    """Whether to time the files, and to count cycles where the emulated core is set up."""


ORDINARY = CheckOptions()


class _SkippedError(Exception):
    """A measure that cannot be taken, with the reason."""


@dataclass(frozen=True)
class _Baseline:
    record: Artifact
    file: Path | None
    """None where the record lies alone."""


@dataclass(frozen=True)
class _Pair:
    """A new file beside the baseline."""

    baseline: _Baseline
    file: Path
    record: Artifact
    options: CheckOptions
    hooks: Hooks

    @property
    def old(self) -> Path:
        """The baseline's file."""
        if self.baseline.file is None:
            raise _SkippedError(f"the baseline's file {self.baseline.record.path!r} does not lie beside its record")
        return self.baseline.file


def check(
    baseline: str | Path, files: list[Path], options: CheckOptions = ORDINARY, hooks: Hooks = SILENT
) -> CheckReport:
    """Compare files with a baseline.

    Args:
        baseline: the record of a file, or the file with its record beside it. With the record alone, what needs the
            file (latency, outputs without weights) is skipped.
        files: new files of the same target and precision.
        options: limits, images and data.
        hooks: receives the measure under way.

    Raises:
        MobilezooError: a file is missing, damaged, or of another target or precision than the baseline.
    """
    if not files:
        raise ConfigError("check takes a baseline's record and the files to compare with it, got no file")
    known = _baseline(Path(baseline))
    pairs = [_pair(known, Path(file), options, hooks) for file in files]
    checked = [FileCheck(path=str(pair.file), compared=tuple(_compare(pair))) for pair in pairs]
    return CheckReport(baseline=str(baseline), limits=options.limits, files=tuple(checked))


def _baseline(path: Path) -> _Baseline:
    found = existing_path(path, "baseline")
    if found.suffix != ".json":
        return _Baseline(load_record_of(Artifact, found), found)
    file = found.with_suffix("")
    if file.exists():
        return _Baseline(load_record_of(Artifact, file), file)
    return _Baseline(Artifact.parse(read_json(found), str(found)), None)


def _pair(baseline: _Baseline, file: Path, options: CheckOptions, hooks: Hooks) -> _Pair:
    from mobilezoo_export import open_artifact

    record, known = open_artifact(existing_path(file, "file")), baseline.record
    if record.target != known.target:
        raise ConfigError(
            f"{file.name!r} is a {record.target!r} file and the baseline is {known.target!r}: compare alike"
        )
    if not record.foreign and record.precision != known.precision:
        raise ConfigError(f"{file.name!r} is {record.precision} and the baseline {known.precision}: compare alike")
    if record.foreign:  # its record did not travel: what the file does not declare is as in the baseline's
        fed = known.preprocessing if "preprocessing" in record.undeclared else record.preprocessing
        record = record.model_copy(update={"preprocessing": fed, "precision": known.precision, "undeclared": ()})
    return _Pair(baseline, existing_path(file, "file"), record, options, hooks)


def _compare(pair: _Pair) -> list[Compared]:
    if sha256_of(pair.file) == pair.baseline.record.sha256:
        text = "the same bytes as the baseline: nothing can differ"
        return [Compared(name="size", status="passed", text=text, limit=pair.options.limits.max_size)]
    coverages: list[Coverage | None] = []

    def read() -> list[Coverage | None]:
        from mobilezoo_export.apart import read_coverage

        if not coverages:
            coverages.extend([pair.baseline.record.coverage or read_coverage(pair.old), read_coverage(pair.file)])
        return coverages

    measures: dict[str, Callable[[], Compared]] = {
        "size": lambda: _size(pair),
        "operators": lambda: _operators(pair, read()),
        "partitions": lambda: _partitions(read()),
        "parity": lambda: _parity(pair),
        "top1": lambda: _top1(pair),
        "latency": lambda: _latency(pair),
        "cycles": lambda: _cycles(pair),
    }
    if pair.options.data is None:
        del measures["top1"]
    if not pair.options.latency:
        del measures["latency"], measures["cycles"]
    return [_measured(pair, name, measure) for name, measure in measures.items()]


def _measured(pair: _Pair, name: str, measure: Callable[[], Compared]) -> Compared:
    """One measure; what a new file cannot do any more is a failure, what cannot be compared is skipped."""
    pair.hooks.on_status(f"{pair.file.name}: {name}")
    try:
        return measure()
    except _SkippedError as error:
        return Compared(name=name, status="skipped", text=str(error))
    except MobilezooError as error:
        return Compared(name=name, status="failed", text=" ".join(str(error).split()))


def _ratio(name: str, old: float, new: float, limit: float, words: str) -> Compared:
    status = "passed" if new <= old * limit else "failed"
    change = f"{new / old:.3f} of the baseline's" if old else "none in the baseline"
    text = f"{words}: {change} (limit {limit:g})"
    fields = {"name": name, "status": status, "text": text, "baseline": old, "value": new, "limit": limit}
    return Compared.parse(fields, name)


def _size(pair: _Pair) -> Compared:
    old, new = pair.baseline.record.size_bytes, size_of(pair.file)
    return _ratio("size", old, new, pair.options.limits.max_size, f"{old:,} → {new:,} bytes")


def _operators(pair: _Pair, coverages: list[Coverage | None]) -> Compared:
    old, new = (_known(one).ops for one in coverages)
    before, after = sum(old.values()), sum(new.values())
    more = ", ".join(f"{count - old.get(op, 0)} more {op}" for op, count in new.items() if count > old.get(op, 0))
    words = f"{before} → {after} operators" + (f" ({more})" if more else "")
    return _ratio("operators", before, after, pair.options.limits.max_operators, words)


def _partitions(coverages: list[Coverage | None]) -> Compared:
    old, new = map(_known, coverages)
    if old.partitions is None or new.partitions is None:
        raise _SkippedError("partitions of this format are made on the phone")
    before, after = sum((old.outside or {}).values()), sum((new.outside or {}).values())
    worse = new.partitions > max(old.partitions, 1) or after > before or (old.partitions > 0) > (new.partitions > 0)
    words = f"{old.partitions} → {new.partitions} partitions, {before} → {after} operators outside XNNPACK"
    fields = {"baseline": float(old.partitions), "value": float(new.partitions), "limit": float(max(old.partitions, 1))}
    return Compared.parse(
        {"name": "partitions", "status": "failed" if worse else "passed", "text": words, **fields}, ""
    )


def _known(coverage: Coverage | None) -> Coverage:
    if coverage is None:
        raise _SkippedError("operators of this format are not read")
    return coverage


def _parity(pair: _Pair) -> Compared:
    """Outputs of both files on the same inputs."""
    from mobilezoo.workflows.doctor_inputs import inputs_for
    from mobilezoo_export import FileApart
    from mobilezoo_export.parity import measure_parity

    given, known = pair.options.limits.min_snr_db, pair.baseline.record
    limit = SNR_DB.get(known.precision, OTHER_SNR_DB) if given is None else given
    if pair.baseline.file is None:
        return _recorded_parity(pair)
    inputs = inputs_for(pair.record, pair.options.images)
    answers = []
    for file, record in ((pair.old, known), (pair.file, pair.record)):
        with FileApart(file, record) as opened:
            answers.append(opened.run_noise(inputs.count) if inputs.images is None else opened.run(inputs.images))
    found = measure_parity(answers[0], answers[1], precision="fp32", inputs=inputs.name, ran_in="host")
    text = f"{found.snr_db:.1f} dB beside the baseline's outputs on {inputs.name} (at least {limit:g})"
    status = "passed" if found.snr_db >= limit else "failed"
    return Compared.parse({"name": "parity", "status": status, "text": text, "value": found.snr_db, "limit": limit}, "")


def _recorded_parity(pair: _Pair) -> Compared:
    """Where the baseline's file is gone: both files' own comparison with PyTorch, as their records have it."""
    old, new = pair.baseline.record.parity, pair.record.parity
    if old is None or new is None:
        raise _SkippedError("neither the baseline's file nor the new one's comparison with PyTorch is at hand")
    limit = old.snr_db - 1.0
    text = f"{old.snr_db:.1f} → {new.snr_db:.1f} dB beside PyTorch, as recorded (at least {limit:.1f})"
    status = "passed" if new.snr_db >= min(limit, 190.0) else "failed"
    fields = {"baseline": old.snr_db, "value": new.snr_db, "limit": limit}
    return Compared.parse({"name": "parity", "status": status, "text": text, **fields}, "")


def _top1(pair: _Pair) -> Compared:
    """Top-1 of both files on the same labelled images."""
    from mobilezoo.data.config import named_data
    from mobilezoo.workflows.evaluate import evaluate_file

    assert pair.options.data is not None
    source = named_data(pair.options.data, None)
    old = evaluate_file(pair.old, source, pair.options.classes)
    new = evaluate_file(pair.file, source, pair.options.classes, record=pair.record)
    limit = pair.options.limits.max_drop
    text = f"{old.top1:.2f}% → {new.top1:.2f}% of {new.images} images (at most {limit:g} points less)"
    status = "passed" if old.top1 - new.top1 <= limit else "failed"
    fields = {"baseline": old.top1, "value": new.top1, "limit": limit}
    return Compared.parse({"name": "top1", "status": status, "text": text, **fields}, "")


def _latency(pair: _Pair) -> Compared:
    """Ratio of the CPU's times, in turns; slower is what most fresh pairs of processes find."""
    if pair.baseline.record.target == "coreml":
        raise _SkippedError("Core ML files are timed on a Mac: `mobilezoo profile OLD NEW --compare --device mac`")
    limit = pair.options.limits.max_latency
    try:
        found = timed(pair.old, pair.file, limit)
    except DeviceError as error:
        raise _SkippedError(str(error)) from None
    middle = median(found)
    text = f"{middle:.3f} of the baseline's CPU time, in turns on this machine (limit {limit:g}; {len(found)} sessions)"
    status = "failed" if middle > limit else "passed"
    return Compared.parse({"name": "latency", "status": status, "text": text, "value": middle, "limit": limit}, "")


def timed(old: Path, new: Path, limit: float) -> list[float]:
    """Ratios of CPU time of a new file over an old one, of as many fresh pairs of processes as decide.

    Args:
        old: the baseline's file.
        new: the file that is compared with it.
        limit: largest accepted ratio.

    Raises:
        DeviceError: a file does not run, or files of its format are not timed here.
    """
    from mobilezoo_latency import compare

    found: list[float] = []
    while not settled(found, limit):
        found.append(compare(old, new, turns=TURNS, allow_folded=True, clock="cpu").ratio)
    return found


def settled(ratios: list[float], limit: float) -> bool:
    """Whether the sessions so far show on which side of the limit a file is.

    One in some dozens is off by more than a regression of 5%, to either side.

    Args:
        ratios: of the sessions so far.
        limit: largest accepted ratio.
    """
    above = sum(ratio > limit for ratio in ratios)
    return len(ratios) >= SESSIONS or abs(2 * above - len(ratios)) >= LEAD


def _cycles(pair: _Pair) -> Compared:
    """Cycles that an emulated core counts; the same in every run."""
    from mobilezoo_latency import load_device, profile
    from mobilezoo_latency.contract import ArtifactFile

    core = UNITS["cpu"]
    try:
        load_device(core).for_artifact(ArtifactFile(pair.file.resolve(), pair.record)).check()
    except (DeviceError, MissingToolError) as error:
        raise _SkippedError(str(error)) from None
    counts = [profile(file, core, allow_folded=True).counts for file in (pair.old, pair.file)]
    old, new = (one.cycles if one is not None else 0.0 for one in counts)
    words = f"{old / 1e6:.3f} → {new / 1e6:.3f} M cycles on {core}, counted"
    return _ratio("cycles", old, new, pair.options.limits.max_cycles, words)
