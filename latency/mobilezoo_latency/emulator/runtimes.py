"""The runtimes that emulated cores have: what each is made of, and where a prepared one lies.

LiteRT belongs to every emulator. The others are optional and lie in folders of their own, so that an emulator without
one of them still works: `runtimes/TARGET/` holds `lib/`, the program `run` and `installed.json`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.installed import STAMP
from mobilezoo.reading import read_json
from mobilezoo_latency.emulator.layout import NATIVE, SETUP_LINE, Emulator

COMMON_SOURCES = ("runner.c", "skip.c", "runner.h")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime as its arm64 wheel has it."""

    target: str
    """The export target whose files it runs."""
    title: str
    delegate: str
    """What computes inside it."""
    distribution: str
    libraries: str
    """Pattern of its shared libraries in the wheel."""
    headers: str = ""
    """Folder of its headers in the wheel; empty where the source restates what it calls."""
    source: str
    """Its runner in `native/`."""
    traced: bool = False
    """Whether its runner counts operators."""
    skips: bool = False
    """Whether counts may leave the arithmetic out (native/skip.c): no kernel of it branches on values."""

    @property
    def sources(self) -> tuple[str, ...]:
        """All files that its program is compiled from."""
        return (self.source, *COMMON_SOURCES)


RUNTIMES = {
    runtime.target: runtime
    for runtime in (
        Runtime(
            target="litert",
            title="LiteRT",
            delegate="XNNPACK",
            distribution="ai-edge-litert",
            libraries=r"ai_edge_litert/libLiteRt\.so",
            source="litert_run.c",
            traced=True,
            skips=True,
        ),
        Runtime(
            target="onnx",
            title="ONNX Runtime",
            delegate="CPUExecutionProvider",
            distribution="onnxruntime",
            libraries=r"onnxruntime/capi/libonnxruntime\.so\.[0-9.]+",
            source="onnx_run.c",
        ),
        Runtime(
            target="executorch",
            title="ExecuTorch",
            delegate="XNNPACK",
            distribution="executorch",
            libraries=r"executorch/lib/libexecutorch(_backend_xnnpack|_kernels_\w+|_threadpool)?\.so",
            headers="executorch/include/",
            source="executorch_run.cpp",
            skips=True,
        ),
    )
}

SOURCES = ("blockcount.c", "clock.c", *RUNTIMES["litert"].sources)
"""What every emulator is compiled from; optional runtimes have hashes of their own."""


class InstalledRuntime(Record):
    """What the set-up prepared; written last, so that its presence means a complete runtime."""

    version: str
    sources_sha256: str


@dataclass(frozen=True)
class Prepared:
    """A runtime that can be called."""

    runtime: Runtime
    version: str
    program: Path
    libraries: Path

    @property
    def name(self) -> str:
        """Name, version and what computes, for records."""
        return f"{self.runtime.title} {self.version} ({self.runtime.delegate})"


def hash_of_sources(names: Iterable[str]) -> str:
    """Hash of files in `native/`, so that a new version of them is compiled again."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update((NATIVE / name).read_bytes())
    return digest.hexdigest()


def folder_of(emulator: Emulator, target: str) -> Path:
    """Folder of an optional runtime.

    Args:
        emulator: the prepared emulator.
        target: its key in RUNTIMES.
    """
    return emulator.root / "runtimes" / target


def installed_runtime(emulator: Emulator, target: str) -> InstalledRuntime | None:
    """What is prepared of an optional runtime; None if nothing usable is.

    Args:
        emulator: the prepared emulator.
        target: its key in RUNTIMES.
    """
    stamp = folder_of(emulator, target) / STAMP
    if not stamp.is_file():
        return None
    try:
        return InstalledRuntime.parse(read_json(stamp), str(stamp))
    except ConfigError:  # prepared by another version of this program
        return None


def is_current(emulator: Emulator, target: str) -> bool:
    """Whether a runtime's programs are compiled from today's sources.

    Args:
        emulator: the prepared emulator.
        target: its key in RUNTIMES.
    """
    if emulator.installed.sources_sha256 != hash_of_sources(SOURCES):
        return False
    found = None if target == "litert" else installed_runtime(emulator, target)
    return found is None or found.sources_sha256 == hash_of_sources(RUNTIMES[target].sources)


def find_runtime(emulator: Emulator, target: str) -> Prepared:
    """The prepared runtime of an export target.

    Args:
        emulator: the prepared emulator.
        target: a key of RUNTIMES.

    Raises:
        DeviceError: no runtime runs such files, or this emulator lacks it; with the remedy.
    """
    runtime = RUNTIMES.get(target)
    if runtime is None:
        known = ", ".join(RUNTIMES)
        raise DeviceError(f"emulated cores run {known} files, and this is {target!r}: export with --to litert")
    if target == "litert":
        root = emulator.root
        return Prepared(runtime, emulator.installed.litert, root / "bin" / "litert_run", root / "lite")
    found = installed_runtime(emulator, target)
    if found is None:
        raise DeviceError(f"the emulator in {str(emulator.root)!r} has no {runtime.title}: {SETUP_LINE}")
    folder = folder_of(emulator, target)
    return Prepared(runtime, found.version, folder / "run", folder / "lib")
