"""`mobilezoo check`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.check_report import CheckLimits, CheckReport
from mobilezoo.cli.doctor import FOUND
from mobilezoo.cli.model_options import ClassesArg
from mobilezoo.cli.options import Json, Quiet, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.errors import printable

LIMITS = CheckLimits()


def check(
    baseline: Annotated[str, typer.Argument(help="Record of the baseline (x.tflite.json), best beside its file.")],
    files: Annotated[list[Path], typer.Argument(help="New files of the same target and precision.")],
    images: Annotated[Path | None, typer.Option("--images", help="Folder of images to compare outputs on.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Labelled images for top-1, as for `eval`.")] = None,
    classes: ClassesArg = None,
    max_size: Annotated[float, typer.Option("--max-size", help="Ratio of sizes.")] = LIMITS.max_size,
    max_operators: Annotated[
        float, typer.Option("--max-operators", help="Ratio of numbers of operators.")
    ] = LIMITS.max_operators,
    min_snr: Annotated[
        float | None, typer.Option("--min-snr", help="dB of outputs over difference; fp32 70, fp16 50, else 40.")
    ] = None,
    max_drop: Annotated[float, typer.Option("--max-drop", help="Points of top-1.")] = LIMITS.max_drop,
    max_latency: Annotated[float, typer.Option("--max-latency", help="Ratio of times, in turns.")] = LIMITS.max_latency,
    max_cycles: Annotated[float, typer.Option("--max-cycles", help="Ratio of counted cycles.")] = LIMITS.max_cycles,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time the files, and count cycles.")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Whether new files are larger, slower, less delegated or wrong beside a baseline: for pull requests.

    Exit code 3 where a file is beyond a limit. What cannot be compared is skipped with the reason.

    Examples:

        mobilezoo check baseline/shvit_s1.fp32.tflite.json runs/new/shvit_s1.fp32.tflite
        mobilezoo check old.int8.tflite.json new.int8.tflite --data folder:photos --max-drop 1
        mobilezoo check old.fp32.onnx.json new.fp32.onnx --no-latency --json
    """
    from mobilezoo.workflows.check_baseline import CheckOptions
    from mobilezoo.workflows.check_baseline import check as workflow

    limits = CheckLimits.parse(
        {
            "max_size": max_size,
            "max_operators": max_operators,
            "min_snr_db": min_snr,
            "max_drop": max_drop,
            "max_latency": max_latency,
            "max_cycles": max_cycles,
        },
        "limits",
    )
    options = CheckOptions(limits, images, data, classes, latency)
    with shown(quiet) as hooks:
        found = workflow(baseline, files, options, hooks)
    print_json(found.model_dump(mode="json")) if as_json else print_check(found)
    if not found.passed:
        raise typer.Exit(FOUND)


def print_check(found: CheckReport) -> None:
    """A line per measure, failures marked.

    Args:
        found: all files beside the baseline.
    """
    for file in found.files:
        print(printable(f"{file.path}: {'passed' if file.passed else 'FAILED'}"))
        for one in file.compared:
            print(
                printable(f"  {one.status.upper() if one.status == 'failed' else one.status:8}{one.name:11}{one.text}")
            )
