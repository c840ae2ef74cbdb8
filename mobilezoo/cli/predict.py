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
    from mobilezoo.workflows.predict import Area, FoundBox, Prediction


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
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Classes, boxes or areas per image; else 5 classes, or all."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: one row per image and rank.")] = False,
    as_json: Json = False,
) -> None:
    """The best classes of single images, read and prepared as `eval` does; exit code 2 where one cannot be read.

    Files of detectors and segmenters give boxes and masks instead.

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
    elif found[0].task == "classify":
        print_predictions(found)
    else:
        print_dense(found)
    if any(f.fault for f in found):
        raise typer.Exit(2)


def csv_text(predictions: "list[Prediction]") -> str:
    """One row per image and rank; a fault has a row of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if any(found.task != "classify" for found in predictions):
        raise MobilezooError("--csv is for classes: boxes and masks are printed by --json")
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


def print_dense(predictions: "list[Prediction]") -> None:
    """Boxes in pixels of each image, or the classes of its mask with their share of the crop."""
    detect = predictions[0].task == "detect"
    rows: list[tuple[Any, ...]] = []
    for found in predictions:
        lines = [(_named(box), f"{100 * box.probability:.2f}%", _sides(box)) for box in found.boxes]
        lines += [(_named(area), f"{100 * area.share:.2f}%", "") for area in found.areas]
        if found.fault:
            lines = [(f"cannot be read: {found.fault}", "", "")]
        for number, line in enumerate(lines or [("no box", "", "")]):
            rows.append((found.image if number == 0 else "", *line[: 3 if detect else 2]))
    if detect:
        print_table("boxes", ("image", "class", "probability", "left, top, right, bottom"), rows)
    else:
        print_table("masks", ("image", "class", "share of the crop"), rows)


def _named(one: "FoundBox | Area") -> str:
    return one.label if one.label is not None else f"class {one.index}"


def _sides(box: "FoundBox") -> str:
    return ", ".join(f"{side:.0f}" for side in (box.left, box.top, box.right, box.bottom))
