"""`mobilezoo profile`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import SubjectFlags
from mobilezoo.cli.options import AllowCommands, Json, Quiet, print_json


def profile(
    subjects: Annotated[list[str], typer.Argument(help="Exported files, checkpoints, zoo names or timm:NAME.")],
    of: SubjectFlags,
    device: Annotated[
        str, typer.Option("--device", help="A name of `mobilezoo device list`, or the path of a device YAML.")
    ] = "host",
    to: Annotated[str, typer.Option("--to", help="Formats to export names and checkpoints to.")] = "litert",
    tier: Annotated[str, typer.Option("--tier", "--protocol", help="screen, report or sustained.")] = "screen",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: one.")] = None,
    cores: Annotated[str | None, typer.Option("--cores", help="Phones and boards: big, mid, little or any.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the device's YAML, for example serial=R58M.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Time two files in turns; report their ratio.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="Where the milliseconds go, operator by operator.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="With --ops: a flame-like picture, SVG.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Measure again even if a stored result fits.")] = False,
    allow_folded: Annotated[
        bool, typer.Option("--allow-folded", help="Time a file whose zero norms let branches vanish.")
    ] = False,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Latency of exported files by a stated protocol; raw samples are kept, noisy runs are marked.

    Examples:

        mobilezoo profile runs/digits/export/*.tflite runs/digits/export/*.onnx
        mobilezoo profile shvit_s1 timm:mobilenetv4_conv_small --to litert,onnx
        mobilezoo profile a.tflite b.tflite --compare
        mobilezoo profile shvit_s1 --device cortex_a76
        mobilezoo profile shvit_s1 --device android --cores big
        mobilezoo profile shvit_s1 --device android --set runner.kind=benchmark_model --set runner.path=PATH
        mobilezoo profile shvit_s1 --tier report --no-cache --json
        mobilezoo profile shvit_s1 --ops --plot shvit_s1.svg
    """
    from mobilezoo.workflows import profile as profiling

    changed = (*(settings or ()), *((f"cores={cores}",) if cores else ()))
    choices = profiling.Choices(
        device, tuple(to.split(",")), tier, threads, not no_cache, allow_folded, not quiet, changed, of.parsed()
    )
    if compare:
        ratio = profiling.compare_subjects(subjects, choices)
        print_json(ratio.model_dump()) if as_json else profiling.print_comparison(ratio)
        return
    if ops:
        from mobilezoo.workflows import profile_operators as operators

        found = operators.profile_subject_operators(subjects, choices, plot)
        print_json(operators.operators_dict(found)) if as_json else operators.print_operators(found)
        return
    reports = profiling.profile_subjects(subjects, choices)
    print_json([profiling.report_dict(r) for r in reports]) if as_json else profiling.print_reports(reports)
