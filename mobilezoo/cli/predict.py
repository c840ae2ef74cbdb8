"""`mobilezoo predict`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import PreprocessArg, SubjectFlags
from mobilezoo.cli.options import Json, print_json
from mobilezoo.errors import MobilezooError


def predict(
    subject: Annotated[str, typer.Argument(help="Checkpoint (.safetensors), exported file, zoo name, or timm:NAME.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    of: SubjectFlags,
    preprocess: PreprocessArg = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes per image.")] = 5,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: one row per image and rank.")] = False,
    as_json: Json = False,
) -> None:
    """The best classes of single images, read and prepared as `eval` does; exit code 2 where one cannot be read.

    Examples:

        mobilezoo predict runs/digits/best.safetensors photo.jpg
        mobilezoo predict model.int8.tflite photos/ --csv
        mobilezoo predict theirs.tflite photo.jpg --preprocess raw --labels labels.txt
    """
    from mobilezoo.workflows import predict as predicting

    if as_csv and as_json:
        raise MobilezooError("--csv and --json are two ways to print the same: choose one")
    options = of.parsed().model_copy(update={"preprocess": preprocess})
    found = predicting.predict(subject, images, options, top)
    if as_json:
        print_json([f.model_dump() for f in found])
    elif as_csv:
        print(predicting.as_csv(found), end="")
    else:
        predicting.print_predictions(found)
    if any(f.fault for f in found):
        raise typer.Exit(2)
