"""Where fetched weights lie, and the lock file that pins what they were when they came.

    ~/.cache/mobilezoo/weights/shvit_s1/in1k/shvit_s1.pth
    ~/.cache/mobilezoo/weights.lock.json

`MOBILEZOO_CACHE` names another folder in place of `~/.cache/mobilezoo`, `XDG_CACHE_HOME` one in place of `~/.cache`.
"""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mobilezoo.artifacts import save_json
from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError, printable
from mobilezoo.locks import locked
from mobilezoo.models.published.choose import Published, WeightsError
from mobilezoo.reading import read_json

VARIABLE = "MOBILEZOO_CACHE"
SETTLED_S = 2.0
"""The coarsest clock of a file system (FAT's)."""


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
    unchanged: tuple[int, int, int, int] | None = None
    """Size, inode, modification and change time of the file that had this hash (`mark_of`); None before the second
    reading."""


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


def mark_of(path: Path) -> tuple[int, int, int, int] | None:
    """What the system changes with a file: its size, inode, and the times of its last writing and last change, in ns.

    Nobody can set the time of a change, so a file with the same mark holds the same bytes. None within two seconds of
    a change: file systems with coarse clocks would give a second one the same time.
    """
    found = path.stat()
    if abs(time.time() - found.st_ctime) < SETTLED_S:
        return None
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def note_mark(one: Published, pin: Pin, mark: tuple[int, int, int, int]) -> None:
    """Keep the mark of a file whose hash was compared, so that the next reader need not hash it.

    Where the lock file cannot be written (a cache that others share), nothing is kept.

    Args:
        one: which file.
        pin: its pin.
        mark: what `mark_of` gave before and after it was hashed.
    """
    with suppress(OSError, MobilezooError):
        _keep(one, pin.model_copy(update={"unchanged": mark}))


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
    _keep(one, pin)
    return pin


def _keep(one: Published, pin: Pin) -> None:
    path = lock_file()
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        pins = _pins()
        save_json(path, pins.model_copy(update={"files": dict(sorted({**pins.files, one.name: pin}.items()))}))


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
