"""`mobilezoo device setup gpu`: finds a Vulkan driver in software, or unpacks one, and verifies it with a small file.

The driver is SwiftShader, which comes with Chromium. Where no Chromium is installed, its distribution package is
downloaded, and the driver and the Vulkan loader are taken out of it; nothing is installed.
"""

import glob
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import DeviceError, require
from mobilezoo.files import sha256_of, size_of, write_text
from mobilezoo.installed import STAMP
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.contract import ArtifactFile
from mobilezoo_latency.debian import fetch_files
from mobilezoo_latency.emulator.probe import IN_CHANNELS, SIDE, write_probe
from mobilezoo_latency.gpu.device import open_on
from mobilezoo_latency.gpu.layout import LOADER, Driver, SoftwareGpu, find_gpu, home

OnMessage = Callable[[str], None]

PACKAGE = "chromium"
ICD = "vk_swiftshader_icd.json"
LIBRARY = "libvk_swiftshader.so"
PLACES = (
    "/usr/lib/chromium",
    "/usr/lib/chromium-browser",
    "/usr/lib64/chromium-browser",
    "/opt/google/chrome",
    "~/.cache/ms-playwright/chromium-*/chrome-linux*",
)
"""Folders of Chromium and Chrome."""
WRONG = 1e-2
"""Difference between driver and CPU, of the deviation of the answers, that no arithmetic explains."""
HALF = 2e-5
"""Difference that float32 does not reach on one layer; half precision gives 1e-4 to 1e-3."""


def set_up(on_message: OnMessage = print, force: bool = False) -> SoftwareGpu:
    """Finds, verifies and names the driver; a verified one is only verified again.

    `VK_DRIVER_FILES` (or `VK_ICD_FILENAMES`), where set, names the driver that is taken.

    Args:
        on_message: called with a line per step.
        force: look for a driver again even if one is known.

    Returns:
        The verified driver.

    Raises:
        DeviceError: no driver is found, or it computes wrongly; what was there before is kept.
        MissingToolError: LiteRT is not installed.
    """
    require("ai_edge_litert", "litert")
    known = None if force else _known()
    if known is not None:
        on_message(f"gpu: already set up, {known.driver.icd}")
        icd, loader = known.driver.icd, known.driver.loader
    else:
        icd, loader = _find(on_message)
    on_message("gpu: running a small file on it")
    driver = Driver(icd=icd, loader=loader, half=_computes_in_half(icd, loader))
    write_text(home() / STAMP, driver.model_dump_json(indent=2) + "\n")
    arithmetic = "in half precision" if driver.half else "in float32: overflow of half precision will not be seen"
    on_message(f"gpu: ready; {icd} computes {arithmetic}")
    return find_gpu()


def _known() -> SoftwareGpu | None:
    try:
        return find_gpu()
    except DeviceError:
        return None


def _find(on_message: OnMessage) -> tuple[str, str]:
    """(driver's JSON file, folder of the loader) of the user's own, an installed, or an unpacked driver."""
    if platform.system() != "Linux":
        raise DeviceError(f"the GPU check runs on Linux only, and this is {platform.system()}")
    given = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if given:
        if not Path(given).is_file():
            raise DeviceError(f"no Vulkan driver {given!r}, which VK_DRIVER_FILES or VK_ICD_FILENAMES names: unset it")
        return str(Path(given).resolve()), _loader_beside(Path(given).resolve().parent)
    for place in PLACES:
        for folder in sorted(glob.glob(str(Path(place).expanduser()))):  # noqa: PTH207 - an absolute pattern
            if all((Path(folder) / name).is_file() for name in (ICD, LIBRARY)):
                on_message(f"gpu: found the driver of {folder}")
                return str(Path(folder) / ICD), _loader_beside(Path(folder))
    return _unpack(on_message)


def _loader_beside(folder: Path) -> str:
    return str(folder) if (folder / LOADER).is_file() else ""


def _unpack(on_message: OnMessage) -> tuple[str, str]:
    """Take driver and loader out of the distribution's Chromium."""
    on_message(f"gpu: no Chromium is installed; downloading its package {PACKAGE} (about 80 MB)")
    target = home() / "driver"
    with temporary_folder("gpu") as folder:
        found = fetch_files(PACKAGE, (ICD, LIBRARY, LOADER), folder)
        target.mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.copyfile(path, target / path.name)
    return str(target / ICD), str(target)


def _computes_in_half(icd: str, loader: str) -> bool:
    """Run one layer on the driver and on the CPU. Raises DeviceError where the two differ beyond any arithmetic."""
    from mobilezoo_export.registry import start_runner

    gpu = SoftwareGpu(home(), Driver(icd=icd, loader=loader, half=False))
    with temporary_folder("probe") as folder:
        path = write_probe(folder / "probe.tflite")
        record = _record_of(path)
        images = np.random.default_rng(0).standard_normal((1, IN_CHANNELS, SIDE, SIDE), dtype=np.float32)
        expected = start_runner(path, record).run(images)
        runner = open_on(gpu, ArtifactFile(path, record))
        try:
            found = runner.run(images)
        finally:
            runner.close()
    difference = float(np.abs(found - expected).max() / expected.std())
    if not difference < WRONG:
        raise DeviceError(f"{icd} computes one layer wrongly, by {difference:.2g} of its deviation: use another driver")
    return difference > HALF


def _record_of(path: Path) -> Artifact:
    return Artifact(
        path=path.name,
        target="litert",
        precision="fp32",
        model="probe",
        input=InputSpec(shape=(1, SIDE, SIDE, IN_CHANNELS), layout="NHWC"),
        preprocessing=Preprocessing(mean=(0.0,) * IN_CHANNELS, std=(1.0,) * IN_CHANNELS),
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        parity=None,
        tools={},
    )
