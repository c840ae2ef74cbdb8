"""Where the Vulkan driver in software lives, and the environment that makes LiteRT use it."""

import os
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError
from mobilezoo.installed import folder_of, read_stamp

ENVIRONMENT = "MOBILEZOO_GPU"
SETUP_LINE = "run `mobilezoo device setup gpu` (a Vulkan driver in software; no root needed)"
LOADER = "libvulkan.so.1"


class Driver(Record):
    """A Vulkan driver that the set-up has verified."""

    icd: str
    """Path of the driver's JSON file."""
    loader: str
    """Folder that holds LOADER; empty where the system's is used."""
    half: bool
    """Whether LiteRT computes in half precision on it, as on a phone."""


@dataclass(frozen=True)
class SoftwareGpu:
    """A verified driver, with the folder that names it."""

    root: Path
    driver: Driver

    def environment(self) -> dict[str, str]:
        """Variables of a process whose Vulkan is this driver."""
        return environment(self.driver.icd, self.driver.loader)


def environment(icd: str, loader: str) -> dict[str, str]:
    """Variables of a process whose Vulkan is one driver.

    Args:
        icd: path of the driver's JSON file.
        loader: folder that holds LOADER; empty for the system's.
    """
    libraries = os.pathsep.join(filter(None, [loader, os.environ.get("LD_LIBRARY_PATH")]))
    return {"VK_ICD_FILENAMES": icd, "VK_DRIVER_FILES": icd, "LD_LIBRARY_PATH": libraries}


def home() -> Path:
    """`$MOBILEZOO_GPU`, or a folder below the user's data."""
    return folder_of("gpu", ENVIRONMENT)


def find_gpu(root: Path | None = None) -> SoftwareGpu:
    """Returns the verified driver. Raises DeviceError, with the command that finds one, where there is none.

    Args:
        root: folder of the set-up; None: the usual one.
    """
    root = root or home()
    driver = read_stamp(Driver, root, "software GPU", SETUP_LINE)
    needed = [Path(driver.icd), *([Path(driver.loader) / LOADER] if driver.loader else [])]
    if missing := next((path for path in needed if not path.is_file()), None):
        raise DeviceError(f"the software Vulkan is gone ({str(missing)!r}): {SETUP_LINE}")
    return SoftwareGpu(root, driver)
