"""Where fetched weights lie, and the lock file that pins what they were when they came.

    ~/.cache/mobilezoo/weights/shvit_s1/in1k/shvit_s1.pth
    ~/.cache/mobilezoo/weights.lock.json

`MOBILEZOO_CACHE` names another folder in place of `~/.cache/mobilezoo`, `XDG_CACHE_HOME` one in place of `~/.cache`.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mobilezoo.artifacts import save_json
from mobilezoo.config import Record
from mobilezoo.errors import printable
from mobilezoo.locks import locked
from mobilezoo.models.published.choose import Published, WeightsError
from mobilezoo.reading import read_json

VARIABLE = "MOBILEZOO_CACHE"


class Pin(Record):
    """What a file was when it was fetched first."""

    address: str
    sha256: str
    size_bytes: int
    key: str | None = None
    """Where in it the weights are; None for the file itself."""
    converted_sha256: str | None = None
    """Of the safetensors made of a TensorFlow checkpoint."""
    pinned_at: str
    """ISO 8601, UTC."""


class Pins(Record):
    """The lock file: name of the weights → what they were."""

    schema_version: Literal[1] = 1
    files: dict[str, Pin] = {}


def cache_folder() -> Path:
    """The folder of everything fetched; it need not be there."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilezoo"


def lock_file() -> Path:
    """Where hashes are pinned."""
    return cache_folder() / "weights.lock.json"


def place_of(one: Published) -> Path:
    """Where the file of published weights lies once it is fetched."""
    name = one.file.file_name(f"{one.config.name}.pth")
    return cache_folder() / "weights" / one.config.name / one.tag / name


def converted_place(one: Published) -> Path:
    """Where the safetensors made of a TensorFlow checkpoint lies."""
    place = place_of(one)
    return place.with_name(f"{one.config.name}.safetensors")


def pin_of(one: Published) -> Pin | None:
    """What the file was when it was fetched first from its address; None before that. Raises WeightsError."""
    pin = _pins().files.get(one.name)
    return pin if pin is not None and pin.address == one.file.address else None


def write_pin(one: Published, sha256: str, size_bytes: int, key: str | None, converted: str | None = None) -> Pin:
    """Pin a file that was just fetched.

    Args:
        one: the published weights it is.
        sha256: of the file.
        size_bytes: of the file.
        key: dotted path of the weights in it; None for the file itself.
        converted: SHA-256 of the safetensors made of it, if one was.
    """
    pin = Pin(
        address=one.file.address,
        sha256=sha256,
        size_bytes=size_bytes,
        key=key,
        converted_sha256=converted,
        pinned_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = lock_file()
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        pins = _pins()
        save_json(path, pins.model_copy(update={"files": dict(sorted({**pins.files, one.name: pin}.items()))}))
    return pin


def _pins() -> Pins:
    path = lock_file()
    if not path.is_file():
        return Pins()
    try:
        return Pins.parse(read_json(path), str(path))
    except Exception as error:
        raise WeightsError(
            f"{printable(str(error))}: the lock file of fetched weights is damaged: restore it, or remove it to pin "
            "them anew"
        ) from None
