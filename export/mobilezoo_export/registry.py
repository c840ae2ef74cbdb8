"""Registry of export targets. Classes are named as text, so that listing them imports no toolchain."""

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
        "qnn": "mobilezoo_export.targets.qnn:QnnExporter",
        "ncnn": "mobilezoo_export.targets.ncnn:NcnnExporter",
        "coreai": "mobilezoo_export.targets.coreai:CoreAIExporter",
    },
    is_subclass(_exporter),
    "a subclass of mobilezoo_export.contract.Exporter",
)
"""In the order they are run."""


def list_targets() -> list[str]:
    """Return the names of all export targets, in the order they are run."""
    return TARGETS.names()


def load_exporter(target: str) -> "Exporter":
    """Return the exporter of a target, by name or `package.module:Class`; toolchains are not imported yet.

    Raises:
        UnknownNameError: no target has this name.
        ConfigError: the place does not name a subclass of Exporter.
    """
    return TARGETS.load(target)()


def targets_with(precision: str) -> tuple[str, ...]:
    """Return the names of the targets that have a precision."""
    return tuple(name for name, cls in TARGETS.load_all().items() if precision in cls.precisions)


def file_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the files that targets write."""
    return tuple(dict.fromkeys(cls.suffix for cls in TARGETS.load_all().values()))


def is_exported(name: str | Path) -> bool:
    """Whether a name is that of an exported file rather than of a network or a checkpoint."""
    return Path(name).suffix in file_suffixes() or _recorded_target(Path(name).expanduser())


def _recorded_target(path: Path) -> bool:
    """Whether the record beside a file names the target that wrote it, as files of targets by place need."""
    return bool(path.suffix) and path.exists() and has_record(path) and "target" in read_json(record_path(path))


def exporter_of(path: Path, record: Artifact | None = None) -> "Exporter":
    """Return the target of an exported file: the one that its record names, else the first with its suffix.

    Args:
        path: an exported file.
        record: its record, if it has one.

    Raises:
        ExportError: no target writes files with this suffix.
    """
    if record is not None:
        return load_exporter(record.target)
    longest_first = sorted(TARGETS.load_all().values(), key=lambda cls: -cls.suffix.count("."))
    for cls in longest_first:  # `.qnn.onnx` before `.onnx`
        if path.name.endswith(cls.suffix):
            return cls()
    raise ExportError(f"{path.name!r} is no exported model: its suffix must be one of {', '.join(file_suffixes())}")


def load_runner(artifact: str | Path, threads: int = 1) -> "Runner":
    """Load an exported file, and the record beside it if there is one, in its own runtime, for its answers.

    Args:
        artifact: path of the file.
        threads: threads that the runtime may use.

    Raises:
        ExportError: the suffix is unknown, or the file is damaged.
        MissingToolError: the runtime is not installed.
    """
    path, record = with_record(artifact)
    return _described(exporter_of(path, record).open_exact(path, threads, record), record)


def with_record(artifact: str | Path) -> "tuple[Path, Artifact | None]":
    """Return the path of an existing file and the record beside it, if any. Raises MobilezooError for a damaged one."""
    finish(Path(artifact).expanduser())
    path = existing_path(artifact, "artifact")
    return path, load_record_of(Artifact, path) if has_record(path) else None


def start_runner(path: Path, record: Artifact | None, threads: int = 1) -> "Runner":
    """Load a file in its runtime and nothing else: the part that `load_ms` times.

    Args:
        path: an exported file.
        record: its record, if it has one.
        threads: threads that the runtime may use.

    Raises:
        ExportError: the suffix is unknown, or the file is damaged.
        MissingToolError: the runtime is not installed.
    """
    return _described(exporter_of(path, record).open(path, threads, record), record)


def _described(runner: "Runner", record: "Artifact | None") -> "Runner":
    """A runner whose input and output are those of the record, if there is one."""
    if record is not None:
        set_input(runner, record)
    return runner


def set_input(runner: "Runner", artifact: Artifact) -> None:
    """Set a runner's input and output as a record describes them; uint8 inputs without quantization take pixels.

    Args:
        runner: a loaded file, changed in place.
        artifact: the file's record.
    """
    pixels = artifact.input.dtype == "uint8" and artifact.input.quantization is None
    runner.input, runner.pixels = artifact.input, artifact.preprocessing if pixels else None
    runner.output_index = artifact.output_index
