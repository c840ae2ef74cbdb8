"""`mobilezoo demo`: train → export → profile → search → report on the embedded digits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mobilezoo.artifacts import Checkpoint, save_json
from mobilezoo.cli.options import Quiet
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import require
from mobilezoo.latency_report import LatencyReport
from mobilezoo.workflows.hooks import Hooks

if TYPE_CHECKING:
    from mobilezoo.search.records import SearchResult
    from mobilezoo_export import ExportResult

TARGETS = ("onnx", "litert", "coreml")
TIMED = ("onnx", "litert")
"""Core ML's runtime exists on Apple devices only; here its program is checked, never timed."""
console = Console(stderr=True)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything is left.")] = Path("runs/demo"),
    quiet: Quiet = False,
) -> None:
    """Train, export, check, time and search on real scanned digits, ending in one page; about five minutes on 2 cores.

    Example:

        mobilezoo demo
    """
    run_demo(out, show_progress=not quiet)


def run_demo(out: Path, show_progress: bool) -> None:
    """Leave a trained backbone, its files, their latency, a small search and one page below `out`.

    Run again after an interruption, it goes on where training and search stopped.
    """
    from mobilezoo.workflows.evaluate import Loading, evaluate
    from mobilezoo.workflows.export import export
    from mobilezoo.workflows.profile import profile
    from mobilezoo.workflows.report import write_report
    from mobilezoo.workflows.search import search
    from mobilezoo.workflows.train import train
    from mobilezoo_export import ExportConfig
    from mobilezoo_latency import ProfileConfig

    _require_toolchains()
    started = time.perf_counter()
    with _step("1/5  train mobilenetv2_ca_100 on 1,437 scanned digits, score it on 360 others"):
        record = train(
            "digits", ("data.preview=24",), out=out / "train", resume=True, hooks=Hooks(show_progress=show_progress)
        )
    with _step("2/5  export to ONNX, LiteRT and Core ML, compared with PyTorch"), shown(not show_progress) as hooks:
        files = export(record.path, ExportConfig(targets=TARGETS, overwrite=True), out=out / "export", hooks=hooks)
        for path in (f.path for f in files if f.path and f.target == "litert"):
            evaluate(path, loading=Loading(workers=0), report=out / "evaluation.html", hooks=hooks)
    with _step("3/5  measure latency on this machine"), shown(not show_progress) as hooks:
        timed = [f.path for f in files if f.path and f.target in TIMED]
        reports = profile(timed, ProfileConfig(use_cache=False), hooks=hooks)
        for report in reports:
            save_json(out / "latency" / f"{Path(report.artifact).name}.latency.json", report)
    with (
        _step("4/5  search small networks by accuracy and LiteRT latency"),
        shown(not show_progress, lines=show_progress) as hooks,
    ):
        # On a slow host even the smallest network may miss the config's target; the demo searches all the same.
        found = search("digits", ("check_target=false",), out=out / "search", hooks=hooks)
    with _step("5/5  write the page"):
        page = write_report([out], out / "report.html")
    _print_summary(record, files, reports, found)
    print(f"\n{time.perf_counter() - started:.0f} s in all. The page: {page.resolve()}")


def _require_toolchains() -> None:
    """Raise MissingToolError now rather than after minutes of training."""
    from mobilezoo_export import load_exporter

    for target in TARGETS:
        load_exporter(target).require()
    for module, extra in (("optuna", "search"), ("jinja2", "report"), ("plotly", "report")):
        require(module, extra)


@contextmanager
def _step(title: str) -> Iterator[None]:
    started = time.perf_counter()
    console.print(f"[bold]{title}[/bold]", highlight=False)
    yield
    console.print(f"     {time.perf_counter() - started:.0f} s", highlight=False)


def _print_summary(
    record: Checkpoint, files: "list[ExportResult]", reports: list[LatencyReport], found: "SearchResult"
) -> None:
    from mobilezoo_latency import summarize

    rows = [("train", record.path, f"top-1 {record.top1:.2f}% on held-out digits")]
    for file in files:
        parity = file.artifact.parity if file.artifact else None
        if parity:
            said = f"max difference from PyTorch {parity.relative:.1e} of the logits' deviation"
        else:
            said = (file.artifact.why_not_runnable if file.artifact else None) or file.reason
        rows.append(("export", file.path or file.target, said))
    for report in reports:
        summary = summarize(report)
        noisy = f" (NOISY: {', '.join(report.noisy)})" if report.noisy else ""
        said = f"median {summary['median_ms']:.2f} ms, p99 {summary['p99_ms']:.2f}{noisy}"
        rows.append(("profile", report.device.runtime, said))
    if found.best is not None:
        best = found.trial(found.best)
        assert best.latency is not None
        said = f"top-1 {best.top1:.2f}% at {best.latency.ms:.2f} ms, best of {len(found.trials)} trials"
        rows.append(("search", found.best_yaml or "", said))
    print_table("demo", ("step", "what", "result"), rows)
