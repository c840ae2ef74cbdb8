"""`mobilezoo explain`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import ModelFlags
from mobilezoo.cli.options import Json, Quiet, config_completion, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.errors import printable


def explain(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("models"), help="Checkpoint (.safetensors), zoo name, or timm:NAME."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    of: ModelFlags,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("explain.html"),
    target: Annotated[
        str | None, typer.Option("--target", help="Class to look for, by name or number; default: the answer.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Module whose map is drawn; default: the last one with a map.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Where in an image the network looks for a class: Grad-CAM maps on one offline page.

    Examples:

        mobilezoo explain runs/digits/best.safetensors photo.jpg photos/
        mobilezoo explain shvit_s1 photo.jpg --pretrained --target 207 --out retriever.html
    """
    from mobilezoo.workflows.explain import explain as draw

    with shown(quiet) as hooks:
        found = draw(model, images, out, of.parsed(), target=target, layer=layer, hooks=hooks)
    if as_json:
        print_json([one.model_dump(exclude={"picture", "heat"}) for one in found])
    else:
        for one in found:
            print(printable(_line(one.image, one.fault, one.target)))
        if any(one.fault is None for one in found):
            print(printable(str(out)))
    if any(one.fault for one in found):
        raise typer.Exit(2)


def _line(image: str, fault: str | None, target: object) -> str:
    from mobilezoo.workflows.predict import Guess

    if not isinstance(target, Guess):
        return f"{image} cannot be read: {fault}"
    label = target.label if target.label is not None else f"class {target.index}"
    return f"{image}: {label} {100 * target.probability:.1f}%"
