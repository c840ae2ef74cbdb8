"""`mobilezoo push` and `pull`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.options import AllowCommands, Json, print_json
from mobilezoo.errors import MobilezooError


def push(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of ours, .safetensors.")],
    repo: Annotated[str | None, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.")] = None,
    local: Annotated[Path | None, typer.Option("--local", help="Write the files to this folder instead.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
) -> None:
    """Share a checkpoint in timm's format, so that `timm.create_model("hf-hub:OWNER/NAME")` loads it.

    Examples:

        mobilezoo push runs/digits/best.safetensors me/digits-ca
        mobilezoo push runs/digits/best.safetensors --local shared/digits-ca
    """
    from mobilezoo import hub

    if (repo is None) == (local is None):
        raise MobilezooError("push takes one place: OWNER/NAME, or --local FOLDER")
    print(hub.push(checkpoint, repo, private=private) if repo else hub.write_folder(checkpoint, local or Path()))


def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub, or a folder in timm's format.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights and their record.")] = Path("runs/pulled"),
    allow_commands: AllowCommands = False,
    as_json: Json = False,
) -> None:
    """Fetch a network of the zoo that was shared in timm's format; eval, export and train take the file.

    Examples:

        mobilezoo pull me/digits-ca
        mobilezoo eval runs/pulled/digits-ca.safetensors
    """
    from mobilezoo import hub

    record = hub.pull(repo, out)
    print_json(record.model_dump()) if as_json else print(out / record.path)
