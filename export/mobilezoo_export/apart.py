"""Run exported files in a separate process: runtimes end the whole process on damaged files.

`python -m mobilezoo_export.apart` is the worker. Batches and scores are passed as `.npy` files in a scratch folder.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo import workers
from mobilezoo.artifacts import Artifact, Coverage, has_record, load_record_of
from mobilezoo.doctor_report import Anatomy
from mobilezoo.errors import ExportError, existing_path, first_line
from mobilezoo.files import finish, size_of
from mobilezoo.memory import limit_memory_for
from mobilezoo.scratch import temporary_folder
from mobilezoo.workers import Worker, WorkerEndedError

COMMAND = [sys.executable, "-m", "mobilezoo_export.apart"]
OPEN_LIMIT_S = 300.0
"""Importing a toolchain and loading a file, on a busy machine."""
IMAGE_LIMIT_S = 60.0
"""Per image, on top."""


class FileApart:
    """An exported file, loaded in its own runtime in a separate process. Use as a context manager.

    Entering it and `run` raise ExportError, in one line, for whatever fails in that process.
    """

    def __init__(self, path: str | Path, artifact: Artifact | None = None, labels: int = 0) -> None:
        """Check that the file exists; the process starts on entry.

        Args:
            path: an exported file.
            artifact: description to use instead of the record beside the file (input size, preprocessing); without
                both, the file is inspected.
            labels: number of known class names, which selects the scores among several outputs; 0: unknown.
        """
        self.path = existing_path(path, "file")
        self._given, self._labels = artifact, labels

    def __enter__(self) -> "FileApart":
        self._held = ExitStack()
        try:
            self._folder = self._held.enter_context(temporary_folder("run"))
            self._worker = self._held.enter_context(Worker(COMMAND, {"TMPDIR": str(self._folder)}))
            given = self._given.model_dump(mode="json") if self._given else None
            request = {"op": "open", "path": str(self.path), "artifact": given, "labels": self._labels}
            reply = self._ask(request, OPEN_LIMIT_S)
            self.artifact = Artifact.parse(reply["artifact"], str(self.path))
            self.runtime = str(reply["runtime"])
            self.output_types = tuple(map(str, reply["output_types"]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the scores, float32 (n, ...), of n float32 NCHW images."""
        images, answers = (self._folder / name for name in ("images.npy", "answers.npy"))
        np.save(images, np.ascontiguousarray(batch, dtype=np.float32))
        self._ask(
            {"op": "run", "images": str(images), "answers": str(answers)}, OPEN_LIMIT_S + IMAGE_LIMIT_S * len(batch)
        )
        found: np.ndarray = np.load(answers)
        return found

    def run_noise(self, count: int) -> np.ndarray:
        """Return the chosen output, float32 (count, values), for seeded noise, see `feeding.noise_answers`."""
        answers = self._folder / "answers.npy"
        self._ask({"op": "noise", "count": count, "answers": str(answers)}, OPEN_LIMIT_S + IMAGE_LIMIT_S * count)
        found: np.ndarray = np.load(answers)
        return found

    def write_fixed(self, shape: tuple[int, ...], out: Path) -> None:
        """Write a copy that takes nothing but one input shape. Raises ExportError.

        Args:
            shape: of the input tensor, in the file's layout.
            out: where the copy goes.
        """
        self._ask({"op": "fix", "path": str(self.path), "shape": shape, "out": str(out)}, OPEN_LIMIT_S)

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        try:
            reply = self._worker.call(request, limit_s)
        except WorkerEndedError as error:
            raise ExportError(f"{self.path.name!r} cannot be run: the runtime {error}") from None
        if "error" in reply:
            text = str(reply["error"])
            raise ExportError(text if self.path.name in text else f"{self.path.name!r}: {text}")
        return reply


def inspect_file(path: Path, labels: int = 0) -> Artifact:
    """Describe a file without a record, read in a separate process.

    Args:
        path: an exported file.
        labels: number of known class names, which selects the scores among several outputs; 0: unknown.

    Raises:
        ExportError: the file is damaged, or its format is not supported.
    """
    with FileApart(path, labels=labels) as opened:
        return opened.artifact


def read_anatomy(path: Path) -> Anatomy:
    """Describe what a file holds, read in a separate process without running it.

    Args:
        path: an exported file, whoever made it.

    Raises:
        ExportError: the file is damaged, or its format has no reader.
    """
    return Anatomy.parse(_ask_once(path, {"op": "anatomy", "path": str(path)})["anatomy"], str(path))


def read_coverage(path: Path) -> Coverage | None:
    """Describe what XNNPACK takes of a file, loaded in a separate process; None for a format without a reader.

    Args:
        path: an exported file, whoever made it.

    Raises:
        ExportError: the file does not load.
    """
    found = _ask_once(path, {"op": "coverage", "path": str(path)})["coverage"]
    return None if found is None else Coverage.parse(found, str(path))


def _ask_once(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One question to a process of its own."""
    try:
        with Worker(COMMAND) as worker:
            reply = worker.call(request, OPEN_LIMIT_S)
    except WorkerEndedError as error:
        raise ExportError(f"{path.name!r} cannot be read: the process {error}") from None
    if "error" in reply:
        text = str(reply["error"])
        raise ExportError(text if path.name in text else f"{path.name!r}: {text}")
    return reply


def open_artifact(path: str | Path, labels: int = 0) -> Artifact:
    """Load the record beside a file; without one, describe the file, read in a process of its own.

    Args:
        path: an exported file.
        labels: number of known class names, which selects the scores among several outputs; 0: unknown.

    Raises:
        ExportError: the file is damaged, or its format is not supported.
        ConfigError: the record is damaged.
    """
    finish(Path(path).expanduser())
    file = existing_path(path, "file")
    return load_record_of(Artifact, file) if has_record(file) else inspect_file(file, labels)


class _Loaded:
    """State of the worker process: the loaded file."""

    def __init__(self) -> None:
        self.runner: Any = None
        self.artifact: Artifact | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        from mobilezoo_export.endings import scores_output

        if request["op"] == "open":
            return self._open(Path(request["path"]), request["artifact"], request["labels"])
        if request["op"] in ("anatomy", "coverage"):
            return self._described(request["op"], Path(request["path"]))
        if request["op"] == "fix":
            return self._fix(Path(request["path"]), tuple(request["shape"]), Path(request["out"]))
        if request["op"] == "noise":
            from mobilezoo_export.feeding import noise_answers

            np.save(request["answers"], noise_answers(self.runner, request["count"]))
            return {}
        if self.artifact and "scores" in self.artifact.undeclared:
            scores_output(self.runner.outputs, len(self.artifact.labels))  # raises with the reason
        np.save(request["answers"], self.runner.run(np.load(request["images"])))
        return {}

    def _open(self, path: Path, given: dict[str, Any] | None, labels: int) -> dict[str, Any]:
        from mobilezoo_export.foreign import describe_file
        from mobilezoo_export.registry import load_runner, set_input

        limit_memory_for(size_of(path))
        artifact = Artifact.parse(given, str(path)) if given else None
        if artifact is None and has_record(path):
            artifact = load_record_of(Artifact, path)
        self.runner = load_runner(path)
        try:
            artifact = artifact or describe_file(path, self.runner, labels)
        except ExportError:
            raise
        except Exception as error:  # readers of descriptions raise whatever a damaged one leads to
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ExportError(f"{path.name!r} cannot be read: {reason}") from error
        set_input(self.runner, artifact)
        self.artifact = artifact
        return {
            "artifact": artifact.model_dump(mode="json"),
            "runtime": self.runner.runtime,
            "output_types": [tensor.dtype for tensor in self.runner.outputs],
        }

    def _described(self, what: str, path: Path) -> dict[str, Any]:
        limit_memory_for(size_of(path))
        if what == "anatomy":
            from mobilezoo_export.anatomy.describe import describe

            return {what: describe(path).model_dump(mode="json")}
        from mobilezoo_export.coverage import coverage
        from mobilezoo_export.registry import exporter_of

        try:
            found = coverage(exporter_of(path), path)
        except Exception as error:  # runtimes raise whatever a file that they do not know leads to
            raise ExportError(f"{path.name!r} does not load: {first_line(error)}") from error
        return {what: None if found is None else found.model_dump(mode="json")}

    def _fix(self, path: Path, shape: tuple[int, ...], out: Path) -> dict[str, Any]:
        from mobilezoo_export.registry import exporter_of

        try:
            exporter_of(path).write_fixed(path, shape, out)
        except (ExportError, OSError):
            raise
        except Exception as error:  # runtimes raise whatever a size that does not fit leads to
            wanted = "×".join(map(str, shape))
            raise ExportError(f"{path.name!r} cannot take an input of {wanted}: {first_line(error)}") from error
        return {}


def main() -> None:
    """Worker entry point: answer requests until the parent exits."""
    workers.main(_Loaded().answer)


if __name__ == "__main__":
    main()
