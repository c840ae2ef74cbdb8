"""`mobilezoo convert`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import NetworkFlags


def convert(
    official: Annotated[Path, typer.Argument(help="An official checkpoint: .pth, .pth.tar, .safetensors.")],
    model: Annotated[str, typer.Option("--model", help="The network it belongs to: zoo name, YAML or timm:NAME.")],
    of: NetworkFlags,
    out: Annotated[Path | None, typer.Option("--out", help="Default: the same name, .safetensors.")] = None,
) -> None:
    """Turn any checkpoint into safetensors with the network's keys, checked against it, and a record beside.

    Examples:

        mobilezoo convert shvit_s1.pth --model shvit_s1
        mobilezoo convert model_best.pth.tar --model timm:resnet18 --labels cat,dog --resolution 192
    """
    from mobilezoo.workflows.convert import convert_checkpoint

    print(convert_checkpoint(model, of.parsed(official), out))
