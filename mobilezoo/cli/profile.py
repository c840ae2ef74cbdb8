"""`mobilezoo profile`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilezoo.cli.model_options import ModelFlags
from mobilezoo.cli.options import (
    ModelConfigFlags,
    ToArg,
    config_completion,
    config_option,
    print_json,
    separated,
    short_forms,
)
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError, printable
from mobilezoo.latency_report import LatencyReport

if TYPE_CHECKING:
    from mobilezoo_latency import Comparison


def profile(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=config_completion("models"),
            metavar="MODEL... [KEY=VALUE]...",
            help="Exported files, checkpoints, zoo names or timm:NAME; then changes: device.serial=R58M",
        ),
    ] = None,
    *,
    of: ModelFlags,
    config: Annotated[str, config_option("profile")] = "default",
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            autocompletion=config_completion("devices"),
            help="A name of `mobilezoo device list`, or the path of a device YAML.",
        ),
    ] = None,
    to: ToArg = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Short for precisions: fp32, fp16, int8.")
    ] = None,
    tier: Annotated[str | None, typer.Option("--tier", "--protocol", help="screen, report or sustained.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: one.")] = None,
    cores: Annotated[str | None, typer.Option("--cores", help="Phones and boards: big, mid, little or any.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Time two files in turns; report their ratio.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="Where the time goes, operator by operator.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="With --ops: a flame graph, SVG.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Measure again even if a stored result fits.")] = False,
    allow_folded: Annotated[
        bool, typer.Option("--allow-folded", help="Time a file whose zero norms let branches vanish.")
    ] = False,
    flags: ModelConfigFlags,
) -> None:
    """Latency of exported files by a stated protocol; raw samples are kept, noisy runs are marked.

    Examples:

        mobilezoo profile runs/digits/export/*.tflite runs/digits/export/*.onnx
        mobilezoo profile shvit_s1 timm:mobilenetv4_conv_small --to litert,onnx
        mobilezoo profile a.tflite b.tflite --compare
        mobilezoo profile shvit_s1 --device cortex_a76 --to litert,onnx,executorch --precision fp32,fp16,int8
        mobilezoo profile shvit_s1 --device android --cores big
        mobilezoo profile shvit_s1 --device android device.runner.kind=benchmark_model device.runner.path=PATH
        mobilezoo profile shvit_s1 --tier report --no-cache --json
        mobilezoo profile shvit_s1 --ops --plot shvit_s1.svg
        mobilezoo profile shvit_s1 --ops --device cortex_a76 --plot shvit_s1.svg
    """
    models, overrides = flags.split(words, "mobilezoo profile FILE", "device.")
    short = {
        "device": device,
        "targets": separated(to),
        "precisions": separated(precision),
        "tier": tier,
        "threads": threads,
        "device.cores": cores,
        "use_cache": False if no_cache else None,
        "allow_folded": allow_folded or None,
    }
    from mobilezoo.workflows import profile as workflow

    how = workflow.load_profile_config(config, (*overrides, *short_forms(short)))
    if flags.keys_printed(f"profile {config}", how):
        return
    if not models:
        raise MobilezooError("profile takes files, checkpoints or names of networks, got none")
    with shown(flags.quiet) as hooks:
        if compare:
            ratio = workflow.compare(models, how, of.parsed(), hooks=hooks)
        elif ops:
            from mobilezoo.workflows import profile_operators as operators

            found = operators.profile_operators(models, how, of.parsed(), plot=plot, hooks=hooks)
        else:
            reports = workflow.profile(models, how, of.parsed(), hooks=hooks)
    if compare:
        print_json(ratio.model_dump()) if flags.as_json else print_comparison(ratio)
    elif ops:
        from mobilezoo.cli.operators import print_operators

        print_json(operators.operators_dict(found)) if flags.as_json else print_operators(found)
    else:
        print_json([workflow.report_dict(r) for r in reports]) if flags.as_json else print_reports(reports)


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
            "runtime",
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
    where = (r.device.kind, r.device.name, r.device.runtime)
    if r.estimate is None:
        return (*where, *counts, "", "not calibrated", _notes(r), r.artifact)
    e = r.estimate
    ms = f"{e.latency_ms:.2f} ({e.low_ms:.2f}–{e.high_ms:.2f})"
    return (*where, *counts, ms, e.error_for(r.precision), _notes(r), r.artifact)


def _notes(r: LatencyReport) -> str:
    notes = ["cached"] if r.cached else []
    notes += [r.unproven] if r.unproven else []
    notes += [f"NOISY: {', '.join(r.noisy)}"] if r.noisy else []
    return "; ".join(notes)
