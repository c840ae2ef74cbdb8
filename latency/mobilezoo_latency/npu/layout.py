"""Where the emulation's own packages live."""

from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo_latency.installed import folder_of, read_stamp

ENVIRONMENT = "MOBILEZOO_NPU"
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
    return folder_of("npu", ENVIRONMENT)


def find_emulation(root: Path | None = None) -> Emulation:
    """Returns the installed emulation. Raises DeviceError, with the command that installs it, where there is none.

    Args:
        root: folder of the set-up; None: the usual one.
    """
    root = root or home()
    versions = read_stamp(Versions, root, "emulated NPU", SETUP_LINE)
    return Emulation(root, versions)
