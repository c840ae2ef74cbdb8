"""`mobilezoo card`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.options import Quiet, config_completion
from mobilezoo.cli.progress import shown


def card(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|CHECKPOINT|FILE",
            autocompletion=config_completion("models"),
            help="A network (shvit_s1, shvit_s1.timm_in1k, timm:resnet18, a YAML), a checkpoint, or an exported file.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: STEM.card.md beside the checkpoint or file, or here.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", help="OWNER/NAME on the hub, for the lines that load it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a Hugging Face model card: what it is, how to load it, preprocessing, parity, latency, license, citation.

    Examples:

        mobilezoo card shvit_s1
        mobilezoo card runs/digits/best.safetensors --repo me/digits-ca
        mobilezoo card runs/digits/export/mobilenetv2_ca_100.int8.tflite
    """
    from mobilezoo.workflows.card import card as workflow

    with shown(quiet) as hooks:
        place = workflow(model, out=out, repo=repo, overwrite=overwrite, hooks=hooks)
    print(place)
