"""`mobilezoo device setup npu`: Qualcomm's emulation of the HTP, in a folder of its own, at the user's word.

`onnxruntime-qnn` comes from the package index with its libraries; their license is Qualcomm's. The folder gets its name
only after a small file has run on the emulation.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mobilezoo.errors import DeviceError
from mobilezoo.files import write_text
from mobilezoo.installed import STAMP
from mobilezoo_export.htp.layout import PACKAGES, Emulation, Versions, find_emulation, home

OnMessage = Callable[[str], None]

RUNTIME, QNN = "1.31.1", "2.7.0"
LICENSE = "onnxruntime_qnn/Qualcomm_LICENSE.pdf"
TERMS = (
    f"onnxruntime-qnn {QNN} holds libraries of Qualcomm Technologies, Inc., under Qualcomm's own license "
    f"({LICENSE} in the package, https://pypi.org/project/onnxruntime-qnn/{QNN}/): you install them, mobilezoo ships "
    "none of them"
)


def set_up(on_message: OnMessage = print, force: bool = False, accept_license: bool = False) -> Emulation:
    """Installs and verifies the emulation; an installed one is only verified.

    Args:
        on_message: called with a line per step.
        force: install again even if it is complete.
        accept_license: the user agrees to Qualcomm's license.

    Returns:
        The emulation.

    Raises:
        DeviceError: the license is not accepted, or a step failed; then nothing is left behind.
    """
    from mobilezoo_latency.npu.probe import verify

    if not force and (known := _known()) is not None:
        verify(known)
        on_message(f"npu: already installed in {known.root}, and a small file runs on it")
        return known
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise DeviceError(f"the NPU is emulated on x86-64 Linux only: this is {platform.system()} {platform.machine()}")
    if not accept_license:
        raise DeviceError(f"{TERMS}. To agree and install: mobilezoo device setup npu --accept-license")
    on_message(f"npu: {TERMS}")
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".npu-", dir=target.parent))
    try:
        on_message("npu: installing onnxruntime-qnn (99 MB) and its runtime")
        _install(stage / PACKAGES)
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        versions = Versions(onnxruntime=RUNTIME, qnn=QNN, python=python)
        write_text(stage / STAMP, versions.model_dump_json(indent=2) + "\n")
        on_message("npu: running a small file on it")
        verify(Emulation(stage, versions))
        if target.exists():
            shutil.rmtree(target)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    on_message(f"npu: ready in {target}; its license: {target / PACKAGES / LICENSE}")
    return find_emulation()


def _known() -> Emulation | None:
    try:
        return find_emulation()
    except DeviceError:
        return None


def _install(packages: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    command += ["--target", str(packages), f"onnxruntime=={RUNTIME}", f"onnxruntime-qnn=={QNN}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise DeviceError(f"onnxruntime-qnn cannot be installed: {lines[-1] if lines else done.returncode}")
