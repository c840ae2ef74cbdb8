"""`mobilezoo eval`."""

from typing import Annotated

import typer

from mobilezoo.cli.model_options import ClassesArg, DataArg, PreprocessArg, SubjectFlags
from mobilezoo.cli.options import AllowCommands, Json, Quiet, print_json


def eval_(
    subject: Annotated[str, typer.Argument(help="Zoo name, checkpoint (.safetensors), exported file, or timm:NAME.")],
    of: SubjectFlags,
    data: DataArg = None,
    classes: ClassesArg = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 64,
    workers: Annotated[int, typer.Option("--workers", min=0)] = 2,
    preprocess: PreprocessArg = None,
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
    from mobilezoo.workflows.evaluate import evaluate_subject, print_result

    options = of.parsed().model_copy(update={"preprocess": preprocess})
    result = evaluate_subject(subject, data, options, batch_size, workers, not quiet, classes)
    print_json(result) if as_json else print_result(result)
