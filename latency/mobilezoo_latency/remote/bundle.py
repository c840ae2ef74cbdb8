"""The files that are copied to a device: the arm64 runner, LiteRT and the C library they were built with.

The loader is called by its path with `--library-path`, so the same files run on any arm64 Linux kernel, Android
included, whatever C library the system has.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from mobilezoo_latency.emulator.layout import Emulator

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
