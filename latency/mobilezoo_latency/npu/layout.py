"""Where the emulation's own packages live."""

import os
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.reading import read_json

ENVIRONMENT = "MOBILEZOO_NPU"
STAMP = "installed.json"
PACKAGES = "packages"
SETUP_LINE = "run `mobilezoo device setup npu` (Qualcomm's libraries, 99 MB, under a license of their own)"


class Versions(Record):
    """What the set-up installed; written last, so that its presence means a complete folder."""

    onnxruntime: str
    qnn: str
    python: str
    """Version of the interpreter that the packages are built for."""


@dataclass(frozen=True)
class Emulation:
    """An installed emulation below `root`."""

    root: Path
    versions: Versions

    @property
    def packages(self) -> Path:
        """Folder of its Python packages."""
        return self.root / PACKAGES


def home() -> Path:
    """`$MOBILEZOO_NPU`, or a folder below the user's data."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "mobilezoo" / "npu"


def find_emulation(root: Path | None = None) -> Emulation:
    """Returns the installed emulation. Raises DeviceError, with the command that installs it, where there is none.

    Args:
        root: folder of the set-up; None: the usual one.
    """
    root = root or home()
    stamp = root / STAMP
    if not stamp.is_file():
        raise DeviceError(f"no emulated NPU below {str(root)!r}: {SETUP_LINE}")
    try:
        versions = Versions.parse(read_json(stamp), str(stamp))
    except ConfigError as error:
        raise DeviceError(f"{str(stamp)!r} is damaged ({error}): {SETUP_LINE}") from None
    return Emulation(root, versions)
