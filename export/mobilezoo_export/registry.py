"""Targets by name. Classes are named as text, so that listing them imports no toolchain."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Artifact, load_record_of, record_path
from mobilezoo.errors import ExportError, UnknownNameError, existing_path

if TYPE_CHECKING:
    from mobilezoo_export.contract import Exporter, Runner

EXPORTERS = {
    "onnx": "mobilezoo_export.targets.onnx:OnnxExporter",
    "litert": "mobilezoo_export.targets.litert:LiteRTExporter",
    "coreml": "mobilezoo_export.targets.coreml:CoreMLExporter",
    "executorch": "mobilezoo_export.targets.executorch:ExecuTorchExporter",
}

RUNNERS = {
    ".onnx": "mobilezoo_export.targets.onnx:OnnxRunner",
    ".tflite": "mobilezoo_export.targets.litert:LiteRTRunner",
    ".mlpackage": "mobilezoo_export.targets.coreml:CoreMLRunner",
    ".pte": "mobilezoo_export.targets.executorch:ExecuTorchRunner",
}


def list_targets() -> list[str]:
    """Names of all export targets, in the order they are run."""
    return list(EXPORTERS)


def load_exporter(target: str) -> "Exporter":
    """The exporter of a target. Raises UnknownNameError; toolchains are imported when it works, not here."""
    if target not in EXPORTERS:
        raise UnknownNameError("export target", target, EXPORTERS)
    exporter: Exporter = _resolve(EXPORTERS[target])()
    return exporter


def load_runner(artifact: str | Path, threads: int = 1) -> "Runner":
    """An exported file in its own runtime; the record beside it is read where there is one.

    Raises ExportError for an unknown suffix or a damaged file, MissingToolError without the runtime.
    """
    return start_runner(*with_record(artifact), threads)


def with_record(artifact: str | Path) -> "tuple[Path, Artifact | None]":
    """A file that a runtime takes, and the record beside it, checked. Raises MobilezooError."""
    path = existing_path(artifact, "artefact")
    if path.suffix not in RUNNERS:
        raise ExportError(f"{path.name!r} is no exported model: its suffix must be one of {', '.join(RUNNERS)}")
    return path, load_record_of(Artifact, path) if record_path(path).is_file() else None


def start_runner(path: Path, record: Artifact | None, threads: int = 1) -> "Runner":
    """The runtime's own loading, and nothing else: this is what `load_ms` times. Raises like `load_runner`."""
    runner: Runner = _resolve(RUNNERS[path.suffix])(path, threads=threads, record=record)
    if record is not None:
        set_input(runner, record)
    return runner


def set_input(runner: "Runner", artifact: Artifact) -> None:
    """Feed and read a runner as a record says: raw pixels where it takes bytes that stand for no other numbers."""
    pixels = artifact.input.dtype == "uint8" and artifact.input.quantization is None
    runner.input, runner.pixels = artifact.input, artifact.preprocessing if pixels else None
    runner.output_index = artifact.output_index


def _resolve(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
