"""`mobilezoo profile`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import LatencyReport
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.verbs.tables import print_table

if TYPE_CHECKING:
    from mobilezoo_latency import Comparison

SUFFIXES = (".onnx", ".tflite", ".mlpackage", ".pte")


def profile_subjects(
    subjects: list[str], device: str, targets: list[str], protocol: str, *, use_cache: bool, progress: bool
) -> list[LatencyReport]:
    """Measure every file named; names and checkpoints are exported first."""
    from rich.console import Console
    from rich.progress import track

    from mobilezoo_latency import load_device, load_protocol, profile

    where, how = load_device(device), load_protocol(protocol)
    files = [file for what in subjects for file in _files(what, targets, progress)]
    bar = track(files, "measuring", console=Console(stderr=True), disable=not progress, transient=True)
    return [profile(file, where, how, use_cache=use_cache) for file in bar]


def compare_files(subjects: list[str], device: str, protocol: str) -> "Comparison":
    """Interleave two files and return their latency ratio with its interval."""
    from mobilezoo_latency import compare

    if len(subjects) != 2:
        raise MobilezooError(f"--compare takes two files, got {len(subjects)}")
    return compare(subjects[0], subjects[1], device, protocol)


def report_dict(report: LatencyReport) -> dict[str, Any]:
    """The record with its summary, as `--json` prints it."""
    from mobilezoo_latency import summarize

    return {**report.model_dump(), "summary": summarize(report)}


def print_reports(reports: list[LatencyReport]) -> None:
    from mobilezoo_latency import summarize

    rows = []
    for r in reports:
        s = summarize(r)
        notes = ["cached"] if r.cached else []
        notes += [f"NOISY: {', '.join(r.noisy)}"] if r.noisy else []
        rows.append(
            (
                r.artifact,
                r.device.kind,
                r.device.runtime,
                r.device.threads,
                f"{s['median_ms']:.3f}",
                f"{s['ci_low_ms']:.3f}–{s['ci_high_ms']:.3f}",
                f"{s['p90_ms']:.3f}",
                f"{s['p99_ms']:.3f}",
                f"{s['mad_ms']:.3f}",
                len(r.samples_ms),
                "; ".join(notes),
            )
        )
    times = ("median ms", "95% interval", "p90 ms", "p99 ms", "MAD ms")
    print_table("latency, batch 1", ("file", "kind", "runtime", "threads", *times, "samples", "notes"), rows)


def print_comparison(c: "Comparison") -> None:
    print(f"A {c.a}: median {c.a_median_ms:.3f} ms ({c.device_a.runtime})")
    print(f"B {c.b}: median {c.b_median_ms:.3f} ms ({c.device_b.runtime})")
    print(f"B takes {c.ratio:.3f} times as long as A (95% interval {c.ratio_low:.3f}–{c.ratio_high:.3f})")


def _files(what: str, targets: list[str], progress: bool) -> list[Path]:
    if Path(what).suffix in SUFFIXES:
        return [Path(what)]
    from mobilezoo.verbs.exporting import export_subject

    out = Path("runs/profile")
    results = export_subject(what, targets, ["fp32"], None, None, out, overwrite=True, progress=progress)
    for result in results:
        if not result.ok:
            raise ExportError(f"{what}: {result.target} {result.precision} {result.status}: {result.reason}")
    return [Path(r.path) for r in results if r.path]
