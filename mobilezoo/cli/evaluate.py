"""`mobilezoo eval`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.cli.model_options import ClassesArg, DataArg, ModelFlags, OutputsArg, PreprocessArg
from mobilezoo.cli.options import AllowCommands, Json, Quiet, config_completion, print_json
from mobilezoo.cli.progress import shown

if TYPE_CHECKING:
    from mobilezoo.workflows.evaluate import Scores


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
        mobilezoo eval theirs.tflite --preprocess raw --data folder:photos --classes imagenet-1k
    """
    from mobilezoo.workflows.evaluate import evaluate

    options = of.parsed().model_copy(update={"preprocess": preprocess, "outputs": outputs})
    with shown(quiet) as hooks:
        scores = evaluate(model, data, options, classes=classes, batch_size=batch_size, workers=workers, hooks=hooks)
    print_json(_plain(scores)) if as_json else print_scores(scores)


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
