"""`mobilezoo predict`."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.cli.model_options import ModelFlags, OutputsArg, PreprocessArg
from mobilezoo.cli.options import Json, config_completion, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError

if TYPE_CHECKING:
    from mobilezoo.workflows.predict import Prediction


def predict(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("models"),
            help="Checkpoint (.safetensors), exported file, zoo name, or timm:NAME.",
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    of: ModelFlags,
    preprocess: PreprocessArg = None,
    outputs: OutputsArg = None,
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
    from mobilezoo.workflows.predict import predict as predict_images

    if as_csv and as_json:
        raise MobilezooError("--csv and --json are two ways to print the same: choose one")
    options = of.parsed().model_copy(update={"preprocess": preprocess, "outputs": outputs})
    with shown() as hooks:
        found = predict_images(model, images, options, top=top, hooks=hooks)
    if as_json:
        print_json([f.model_dump() for f in found])
    elif as_csv:
        print(csv_text(found), end="")
    else:
        print_predictions(found)
    if any(f.fault for f in found):
        raise typer.Exit(2)


def csv_text(predictions: "list[Prediction]") -> str:
    """One row per image and rank; a fault has a row of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "rank", "index", "label", "probability", "fault"))
    for found in predictions:
        for rank, guess in enumerate(found.best, 1):
            writer.writerow((found.image, rank, guess.index, guess.label or "", f"{guess.probability:.6f}", ""))
        if found.fault:
            writer.writerow((found.image, "", "", "", "", found.fault))
    return out.getvalue()


def print_predictions(predictions: "list[Prediction]") -> None:

    rows: list[tuple[Any, ...]] = []
    for found in predictions:
        for rank, guess in enumerate(found.best, 1):
            label = guess.label if guess.label is not None else f"class {guess.index}"
            rows.append((found.image if rank == 1 else "", rank, label, f"{100 * guess.probability:.2f}%"))
        if found.fault:
            rows.append((found.image, "", f"cannot be read: {found.fault}", ""))
    print_table("best classes", ("image", "rank", "class", "probability"), rows)
