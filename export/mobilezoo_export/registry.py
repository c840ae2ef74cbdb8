"""Targets by name. Classes are named as text, so that listing them imports no toolchain."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Artifact, has_record, load_record_of, record_path
from mobilezoo.errors import ExportError, existing_path
from mobilezoo.files import finish
from mobilezoo.reading import read_json
from mobilezoo.registry import Registry, is_subclass

if TYPE_CHECKING:
    from mobilezoo_export.contract import Exporter, Runner


def _exporter() -> type:
    from mobilezoo_export.contract import Exporter

    return Exporter


TARGETS: "Registry[type[Exporter]]" = Registry(
    "export target",
    "targets",
    {
        "onnx": "mobilezoo_export.targets.onnx:OnnxExporter",
        "litert": "mobilezoo_export.targets.litert:LiteRTExporter",
        "coreml": "mobilezoo_export.targets.coreml:CoreMLExporter",
        "executorch": "mobilezoo_export.targets.executorch:ExecuTorchExporter",
    },
    is_subclass(_exporter),
    "a subclass of mobilezoo_export.contract.Exporter",
)
"""In the order they are run."""


def list_targets() -> list[str]:
    """Names of all export targets, in the order they are run."""
    return TARGETS.names()


def load_exporter(target: str) -> "Exporter":
    """The exporter of a target, by name or place.

    Raises UnknownNameError or ConfigError; toolchains are imported when it works, not here.
    """
    return TARGETS.load(target)()


def file_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that targets write."""
    return tuple(dict.fromkeys(cls.suffix for cls in TARGETS.load_all().values()))


def is_exported(name: str | Path) -> bool:
    """Whether a name is an exported file's rather than a network's or a checkpoint's."""
    return Path(name).suffix in file_suffixes() or _recorded_target(Path(name).expanduser())


def _recorded_target(path: Path) -> bool:
    """Whether the record beside a file names the target that wrote it, as files of targets by place need."""
    return bool(path.suffix) and path.exists() and has_record(path) and "target" in read_json(record_path(path))


def exporter_of(path: Path, record: Artifact | None = None) -> "Exporter":
    """The target of an exported file: the one its record names, else the first with its suffix. Raises ExportError."""
    if record is not None:
        return load_exporter(record.target)
    for cls in TARGETS.load_all().values():
        if cls.suffix == path.suffix:
            return cls()
    raise ExportError(f"{path.name!r} is no exported model: its suffix must be one of {', '.join(file_suffixes())}")


def load_runner(artifact: str | Path, threads: int = 1) -> "Runner":
    """An exported file in its own runtime; the record beside it is read where there is one.

    Raises ExportError for an unknown suffix or a damaged file, MissingToolError without the runtime.
    """
    return start_runner(*with_record(artifact), threads)


def with_record(artifact: str | Path) -> "tuple[Path, Artifact | None]":
    """A file that a runtime takes, and the record beside it, checked. Raises MobilezooError."""
    finish(Path(artifact).expanduser())
    path = existing_path(artifact, "artifact")
    return path, load_record_of(Artifact, path) if has_record(path) else None


def start_runner(path: Path, record: Artifact | None, threads: int = 1) -> "Runner":
    """The runtime's own loading, and nothing else: this is what `load_ms` times. Raises like `load_runner`."""
    runner = exporter_of(path, record).open(path, threads, record)
    if record is not None:
        set_input(runner, record)
    return runner


def set_input(runner: "Runner", artifact: Artifact) -> None:
    """Feed and read a runner as a record says: raw pixels where it takes bytes that stand for no other numbers."""
    pixels = artifact.input.dtype == "uint8" and artifact.input.quantization is None
    runner.input, runner.pixels = artifact.input, artifact.preprocessing if pixels else None
    runner.output_index = artifact.output_index
