"""The files that are copied to a device: the arm64 runner, LiteRT and the C library they were built with.

The loader is called by its path with `--library-path`, so the same files run on any arm64 Linux kernel, Android
included, whatever C library the system has.
"""

import hashlib
import shlex
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.contract import name_of
from mobilezoo_latency.emulator.layout import Emulator, find_emulator
from mobilezoo_latency.emulator.probe import write_probe
from mobilezoo_latency.remote.link import Link
from mobilezoo_latency.remote.sending import send

SENTINEL = {"side": 32, "in_channels": 64, "out_channels": 64}
LOADER = "ld-linux-aarch64.so.1"
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6")


class Bundle(NamedTuple):
    """Files by their name on the device, and a hash of their contents, which names their folder."""

    files: dict[str, Path]
    key: str


def runner_bundle(emulator: Emulator) -> Bundle:
    """The files of the prepared emulator that a device needs."""
    system = emulator.root / "tools" / "usr" / "aarch64-linux-gnu" / "lib"
    files = {name: (system / name).resolve() for name in (LOADER, *LIBRARIES) if (system / name).exists()}
    files["libLiteRt.so"] = emulator.root / "lite" / "libLiteRt.so"
    files["litert_run"] = emulator.root / "bin" / "litert_run"
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return Bundle(files, digest.hexdigest()[:16])


def runner_command(folder: str) -> list[str]:
    """First words of a command line that calls the runner in `folder` on the device."""
    return [f"{folder}/{LOADER}", "--library-path", folder, f"{folder}/litert_run"]


def install_runner(link: Link, folder: str) -> str:
    """Copies the runner to the device unless it is there.

    Args:
        link: the connection.
        folder: folder on the device; the files go to one of their own below it.

    Returns:
        The folder of the runner.

    Raises:
        DeviceError: no prepared emulator, a file did not arrive whole, or it cannot be made executable.
    """
    bundle = runner_bundle(find_emulator())
    place = f"{folder}/runner-{bundle.key}"
    for name, local in bundle.files.items():
        send(link, local, name, place)
    made = link.shell(f"chmod 755 {shlex.join(f'{place}/{name}' for name in ('litert_run', LOADER))}")
    if made.status != 0:
        raise DeviceError(f"{link.name}: {place}: {name_of(made.text)}")
    return place


def send_sentinel(link: Link, folder: str) -> str:
    """Copies a small network of fixed cost, timed between slices; returns its path on the device. Raises DeviceError.

    Args:
        link: the connection.
        folder: folder of the runner on the device.
    """
    with temporary_folder("sentinel") as local:
        return send(link, write_probe(local / "sentinel.tflite", **SENTINEL), "sentinel.tflite", folder)
