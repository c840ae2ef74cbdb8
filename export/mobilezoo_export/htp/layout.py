"""Where the emulation's own packages live."""

import sys
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError
from mobilezoo.installed import folder_of, read_stamp

ENVIRONMENT = "MOBILEZOO_NPU"
PACKAGES = "packages"
WORKER = Path(__file__).parent / "worker.py"
ENVIRONMENT_OF_WORKER = {"PYTHONPATH": ""}
"""This process's packages would hide those of the emulation."""
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


def python_of(emulation: Emulation) -> str:
    """This interpreter. Raises DeviceError where the emulation's packages are built for another version.

    Args:
        emulation: the installed emulation.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if emulation.versions.python != version:
        raise DeviceError(
            f"the emulated NPU below {str(emulation.root)!r} is for Python {emulation.versions.python}, and this is "
            f"{version}: run `mobilezoo device setup npu --force`"
        )
    return sys.executable


def command_of(emulation: Emulation) -> list[str]:
    """What starts the emulation's own process. Raises DeviceError, see `python_of`.

    Args:
        emulation: the installed emulation.
    """
    return [python_of(emulation), "-I", "-S", str(WORKER), str(emulation.packages)]


def provider_options(htp_arch: str, soc_model: int, half: bool = True) -> dict[str, str]:
    """Options of ONNX Runtime's QNN provider.

    Args:
        htp_arch: version of the HTP.
        soc_model: Qualcomm's number of the chip.
        half: floats in half precision, as the HTP computes.
    """
    return {"htp_arch": htp_arch, "soc_model": str(soc_model), "enable_htp_fp16_precision": "1" if half else "0"}
