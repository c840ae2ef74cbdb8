"""`mobilezoo eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.cli.model_options import ClassesArg, DataArg, ModelFlags, OutputsArg, PreprocessArg
from mobilezoo.cli.options import AllowCommands, Json, Quiet, config_completion, print_json, separated
from mobilezoo.cli.progress import shown
from mobilezoo.errors import MobilezooError, printable

if TYPE_CHECKING:
    from mobilezoo.workflows.evaluate import Scores
    from mobilezoo.workflows.model_options import ModelOptions


def eval_(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("models"),
            help="Zoo name, checkpoint (.safetensors), exported file, or timm:NAME.",
        ),
    ],
    of: ModelFlags,
    data: DataArg = None,
    classes: ClassesArg = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 64,
    workers: Annotated[int, typer.Option("--workers", min=0)] = 2,
    preprocess: PreprocessArg = None,
    outputs: OutputsArg = None,
    check: Annotated[
        str | None,
        typer.Option("--check", help="Of a file: run it on units of a phone (cpu, gpu, npu) instead of scoring it."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", help="An HTML page: confusions, recall and precision by class, calibration, worst mistakes."
        ),
    ] = None,
    as_json: Json = False,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Top-1 and top-5 of a network, a checkpoint, or an exported file run in its own runtime.

    A file is scored beside the PyTorch weights its record names (or --checkpoint), with the drop between them.

    Examples:

        mobilezoo eval shvit_s1 --checkpoint shvit_s1.pth --data folder:/data/imagenet
        mobilezoo eval shvit_s1 --checkpoint shvit_s1.pth --data folder:ten_breeds --classes imagenet-1k
        mobilezoo eval runs/digits/best.safetensors
        mobilezoo eval runs/digits/export/mobilenetv2_ca_100.fp32.tflite
        mobilezoo eval runs/digits/export/mobilenetv2_ca_100.int8.tflite --report runs/digits/int8.html
        mobilezoo eval shvit_s1.fp32.tflite --check cpu,gpu
        mobilezoo eval theirs.tflite --preprocess raw --data folder:photos --classes imagenet-1k
    """
    from mobilezoo.workflows.evaluate import Loading, evaluate

    options = of.parsed().model_copy(update={"preprocess": preprocess, "outputs": outputs})
    if check is not None:
        if (data, classes, report) != (None, None, None):
            raise MobilezooError("--check compares a file on a few photographs: leave --data, --classes, --report out")
        _check(Path(model), check, options, as_json, quiet)
        return
    loading = Loading(batch_size, workers)
    with shown(quiet) as hooks:
        scores = evaluate(model, data, options, classes=classes, loading=loading, report=report, hooks=hooks)
    print_json(_plain(scores)) if as_json else print_scores(scores)
    if report is not None and not as_json:
        print(f"report: {printable(str(report))}")


def _check(file: Path, units: str, options: "ModelOptions", as_json: bool, quiet: bool) -> None:
    """Run a file on units of a phone; exit code 2 unless it passes on each."""
    from mobilezoo.cli.export import print_checks
    from mobilezoo.workflows.check_exported import check_exported
    from mobilezoo_export.registry import is_exported

    if not is_exported(file):
        raise MobilezooError(f"--check is for exported files, and {str(file)!r} is none: export it first")
    names = tuple(separated(units) or ())
    with shown(quiet) as hooks:
        checked = check_exported(file, names, options, hooks)
    asked = [one for one in checked.checks if one.unit in names]
    print_json([one.model_dump() for one in asked]) if as_json else print_checks([checked])
    if any(one.status != "passed" for one in asked):
        raise typer.Exit(2)


def _plain(scores: "Scores") -> dict[str, Any]:
    """Without what was not found."""
    return {name: value for name, value in scores.model_dump(exclude_none=True).items() if value or name != "zeros"}


def print_scores(scores: "Scores") -> None:
    """A line for the network, a line for the file, and what was not shown of it."""
    if scores.pytorch is not None:
        print_scores(scores.pytorch)
    loss = "none" if scores.loss is None else f"{scores.loss:.4f}"
    print(
        f"{scores.model} on {scores.data} ({scores.images} images, {scores.runs_in}): "
        f"top-1 {scores.top1:.2f}%  top-5 {scores.top5:.2f}%  loss {loss}"
        + (f"  drop {scores.top1_drop:.2f}" if scores.top1_drop is not None else "")
    )
    if scores.output is not None:
        print(f"  {_about_file(scores)}")


def _about_file(scores: "Scores") -> str:
    """What a file answers with, and what was not shown of it."""
    from mobilezoo.workflows.answers import LEAST, WORDS

    assert scores.output is not None
    said = [f"output: {WORDS[scores.output]}"]
    if scores.zeros:
        said.append(f"{scores.zeros} images give their class probability 0, which the loss counts as {LEAST:g}")
    if scores.parity:
        said.append(f"parity with PyTorch: {scores.parity}")
    return "; ".join(said)
