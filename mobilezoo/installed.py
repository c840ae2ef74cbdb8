"""What `mobilezoo device setup` leaves on this machine: a folder per tool, its stamp written last."""

import os
from pathlib import Path
from typing import TypeVar

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.reading import read_json

STAMP = "installed.json"
Stamp = TypeVar("Stamp", bound=Record)


def user_data() -> Path:
    """Folder of this product below the user's data (XDG base directory specification)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "mobilezoo"


def folder_of(tool: str, variable: str) -> Path:
    """Folder of one tool: what an environment variable names, or its own below the user's data.

    Args:
        tool: name of the folder below the user's data.
        variable: environment variable that may name another.
    """
    given = os.environ.get(variable)
    return Path(given).expanduser() if given else user_data() / tool


def read_stamp(kind: type[Stamp], root: Path, what: str, remedy: str) -> Stamp:
    """What the set-up recorded when it was complete.

    Args:
        kind: record of the tool.
        root: folder of the tool.
        what: the tool, as an error names it.
        remedy: command that sets it up.

    Raises:
        DeviceError: nothing complete is there, or the record is damaged.
    """
    stamp = root / STAMP
    if not stamp.is_file():
        raise DeviceError(f"no {what} below {str(root)!r}: {remedy}")
    try:
        return kind.parse(read_json(stamp), str(stamp))
    except ConfigError as error:
        raise DeviceError(f"{str(stamp)!r} is damaged ({error}): {remedy}") from None
