"""Whose weights a record's file was made of."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Checkpoint, Origin, has_record, read_record_of
from mobilezoo.models.published.cache import pin_of
from mobilezoo.models.published.choose import Published, choose

if TYPE_CHECKING:
    from mobilezoo.models.base import ModelConfig


def origin(one: Published) -> Origin:
    """The entry of a record that is made of published weights; they are fetched, so that their hash is pinned."""
    pin = pin_of(one)
    return Origin(name=one.name, address=one.file.address, sha256=pin.sha256 if pin else None, license=one.file.license)


def origin_of_start(config: "ModelConfig", pretrained: bool | str, checkpoint: str | Path | None) -> Origin | None:
    """The published weights that a training began with.

    Args:
        config: its network.
        pretrained: True or a tag where it took published weights.
        checkpoint: the file that it took otherwise; a record beside it may have an origin.

    Returns:
        None where it began with none.
    """
    if checkpoint is not None:
        beside = Path(checkpoint).expanduser()
        known = beside.suffix == ".safetensors" and beside.is_file() and has_record(beside)
        return read_record_of(Checkpoint, beside).origin if known else None
    return origin(choose(config, pretrained)) if pretrained and config.weights else None
