"""`mobilezoo profile`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mobilezoo.artifacts import LatencyReport
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import ExportError, MobilezooError, printable
from mobilezoo.workflows.model_options import SubjectOptions

if TYPE_CHECKING:
    from mobilezoo_latency import Comparison

EXPORTS = Path("runs/profile")
SEED = 0
"""Of fresh weights: the same name gives the same file, so that a kept latency is found again."""


class Choices(NamedTuple):
    """How to measure."""

    device: str = "host"
    targets: tuple[str, ...] = ("litert",)
    """Formats that names and checkpoints are exported to."""
    tier: str = "screen"
    threads: int | None = None
    use_cache: bool = True
    allow_folded: bool = False
    progress: bool = True
    settings: tuple[str, ...] = ()
    """Overrides of the device's YAML, `key=value`."""
    said: SubjectOptions = SubjectOptions()
    """Of the networks that are exported first."""


def profile_subjects(subjects: list[str], choices: Choices) -> list[LatencyReport]:
    """Measure every file named; names and checkpoints are exported first."""
    from rich.console import Console
    from rich.progress import track

    from mobilezoo_latency import load_device, load_protocol, profile

    device = load_device(choices.device, choices.settings)
    protocol = load_protocol(choices.tier, threads=choices.threads)
    files = [file for what in subjects for file in exported_files(what, choices)]
    shown = choices.progress and len(files) > 1
    bar = track(files, "measuring", console=Console(stderr=True), disable=not shown, transient=True)
    cached, folded = choices.use_cache, choices.allow_folded
    try:
        return [profile(file, device, protocol, use_cache=cached, allow_folded=folded) for file in bar]
    finally:
        device.close()


def compare_subjects(subjects: list[str], choices: Choices) -> "Comparison":
    """Time two networks in turns and return their latency ratio with its interval."""
    from mobilezoo_latency import compare, load_device, load_protocol

    if len(subjects) != 2:
        raise MobilezooError(f"--compare takes two files, got {len(subjects)}")
    files = [file for what in subjects for file in exported_files(what, choices)]
    if len(files) != 2:
        raise MobilezooError(f"--compare takes one format for both, got --to {','.join(choices.targets)}")
    protocol = load_protocol(choices.tier, threads=choices.threads)
    device = load_device(choices.device, choices.settings)
    return compare(files[0], files[1], device, protocol, allow_folded=choices.allow_folded)


def report_dict(report: LatencyReport) -> dict[str, Any]:
    """The record with its summary, as `--json` prints it; the summary is null for counts without calibration."""
    from mobilezoo_latency import summarize

    known = report.samples_ms or report.estimate
    return {**report.model_dump(), "summary": summarize(report) if known else None}


def print_reports(reports: list[LatencyReport]) -> None:
    """One table of what was timed and one of what was counted: the two are never in one column."""
    timed = [r for r in reports if r.samples_ms]
    if timed:
        times = ("median ms", "95% interval", "p90 ms", "p99 ms", "MAD ms")
        timed_columns = ("kind", "runtime", "threads", *times, "samples", "load ms", "notes", "file")
        print_table("latency, batch 1, measured", timed_columns, [_timed_row(r) for r in timed], paths_last=True)
    counted = [r for r in reports if r.counts]
    if counted:
        columns = (
            "kind",
            "core",
            "M instructions",
            "M cycles",
            "k DRAM lines",
            "estimated ms",
            "error",
            "notes",
            "file",
        )
        print_table("emulated: counted, not timed", columns, [_counted_row(r) for r in counted], paths_last=True)
        for basis in dict.fromkeys(r.estimate.basis for r in counted if r.estimate):
            print(f"estimates and their error rest on: {basis}")


def print_comparison(c: "Comparison") -> None:
    for name, file, ms, device, doubt in (
        ("A", c.a, c.a_median_ms, c.device_a, c.unproven_a),
        ("B", c.b, c.b_median_ms, c.device_b, c.unproven_b),
    ):
        print(f"{name} {printable(file)}: median {ms:.3f} ms ({device.runtime})" + (f"; {doubt}" if doubt else ""))
    print(f"B takes {c.ratio:.3f} times as long as A (95% interval {c.ratio_low:.3f}–{c.ratio_high:.3f})")


def exported_files(what: str, choices: Choices) -> list[Path]:
    """An exported file as it is; anything else is exported to each target first. Raises ExportError."""
    from mobilezoo_export.registry import is_exported

    if is_exported(what):
        if choices.said != SubjectOptions():
            raise MobilezooError(f"{what!r} is a file as it is: --checkpoint and its like are for networks")
        return [Path(what)]
    import torch

    from mobilezoo.workflows.export import export_subject
    from mobilezoo.workflows.export_images import NONE_NAMED

    torch.manual_seed(SEED)
    results = export_subject(
        what,
        list(choices.targets),
        ["fp32"],
        choices.said,
        NONE_NAMED,
        EXPORTS,
        overwrite=True,
        progress=choices.progress,
    )
    for result in results:
        if not result.ok:
            raise ExportError(f"{what}: {result.target} {result.precision} {result.status}: {result.reason}")
    return [Path(r.path) for r in results if r.path]


def _timed_row(r: LatencyReport) -> tuple[object, ...]:
    from mobilezoo_latency import summarize

    s = summarize(r)
    interval = f"{s['ci_low_ms']:.3f}–{s['ci_high_ms']:.3f}"
    times = (f"{s['median_ms']:.3f}", interval, *(f"{s[key]:.3f}" for key in ("p90_ms", "p99_ms", "mad_ms")))
    load = "" if r.load_ms is None else f"{r.load_ms:.0f}"
    return (r.device.kind, r.device.runtime, r.device.threads, *times, len(r.samples_ms), load, _notes(r), r.artifact)


def _counted_row(r: LatencyReport) -> tuple[object, ...]:
    assert r.counts is not None
    lines = "" if r.counts.dram_lines is None else f"{r.counts.dram_lines / 1e3:.0f}"
    counts = (f"{r.counts.instructions / 1e6:.2f}", f"{r.counts.cycles / 1e6:.2f}", lines)
    if r.estimate is None:
        return (r.device.kind, r.device.name, *counts, "", "not calibrated", _notes(r), r.artifact)
    e = r.estimate
    ms = f"{e.latency_ms:.2f} ({e.low_ms:.2f}–{e.high_ms:.2f})"
    return (r.device.kind, r.device.name, *counts, ms, f"{e.error_percent:.1f}%", _notes(r), r.artifact)


def _notes(r: LatencyReport) -> str:
    notes = ["cached"] if r.cached else []
    notes += [r.unproven] if r.unproven else []
    notes += [f"NOISY: {', '.join(r.noisy)}"] if r.noisy else []
    return "; ".join(notes)
