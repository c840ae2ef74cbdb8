"""`mobilezoo kit`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import OutputsArg, PreprocessArg
from mobilezoo.cli.options import Json, print_json
from mobilezoo.cli.progress import shown


def kit(
    file: Annotated[str, typer.Argument(help="An exported file: .tflite, .onnx, .mlpackage.")],
    kind: Annotated[str, typer.Option("--for", help="What the app is made for: python, web, cpp, android, ios.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: NAME-KIND beside the file.")] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Class names: a .txt or .json file, or a,b,c in the file's order.")
    ] = None,
    preprocess: PreprocessArg = None,
    outputs: OutputsArg = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a kit that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a folder that runs an exported file on images, in an app's own language and without mobilezoo.

    It holds the file, the names of its classes, and the least code that reads an image, prepares it as the record
    says, runs the file and prints the five best classes, or draws boxes or masks; its README has the commands.

    Examples:

        mobilezoo kit runs/digits/export/mobilenetv2_ca_100.fp32.tflite --for python --out digits-python
        mobilezoo kit theirs.onnx --for python --preprocess imagenet --labels labels.txt
        mobilezoo kit model.int8.tflite --for android --out app
    """
    from mobilezoo.workflows.kit import write_kit
    from mobilezoo.workflows.model_options import ModelOptions, read_labels

    names = read_labels(labels) if labels is not None else ()
    options = ModelOptions(labels=names, preprocess=preprocess, outputs=outputs)
    with shown() as hooks:
        made = write_kit(file, kind, out, options, overwrite=overwrite, hooks=hooks)
    if as_json:
        print_json(made.model_dump())
        return
    print(f"{made.folder}: {', '.join(made.files)}")
    print(f"next: {made.folder}/README.md")
