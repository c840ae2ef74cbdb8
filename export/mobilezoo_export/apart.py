"""Exported files in a process of their own: runtimes end the whole process on files that are damaged.

`python -m mobilezoo_export.apart` is the child. Batches and answers travel as `.npy` files in a scratch folder.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo import workers
from mobilezoo.artifacts import Artifact, has_record, load_record_of
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
    """An exported file, loaded in its own runtime in its own process. Use as a context manager.

    `artifact` may differ from the record beside the file (input size, preprocessing); without one, what lies beside it
    or the file itself tells. Raises ExportError in one line for whatever happens there.
    """

    def __init__(self, path: str | Path, artifact: Artifact | None = None, labels: int = 0) -> None:
        """`labels` names that are known help to find the scores among several outputs."""
        self.path = existing_path(path, "file")
        self._given, self._labels = artifact, labels

    def __enter__(self) -> "FileApart":
        self._held = ExitStack()
        try:
            self._folder = self._held.enter_context(temporary_folder("run"))
            self._worker = self._held.enter_context(Worker(COMMAND, {"TMPDIR": str(self._folder)}))
            given = self._given.model_dump(mode="json") if self._given else None
            request = {"op": "open", "path": str(self.path), "artifact": given, "labels": self._labels}
            said = self._ask(request, OPEN_LIMIT_S)
            self.artifact = Artifact.parse(said["artifact"], str(self.path))
            self.runtime = str(said["runtime"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The scores, float32 [n, ...], of any number of float32 NCHW images."""
        images, answers = (self._folder / name for name in ("images.npy", "answers.npy"))
        np.save(images, np.ascontiguousarray(batch, dtype=np.float32))
        self._ask(
            {"op": "run", "images": str(images), "answers": str(answers)}, OPEN_LIMIT_S + IMAGE_LIMIT_S * len(batch)
        )
        found: np.ndarray = np.load(answers)
        return found

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        try:
            said = self._worker.call(request, limit_s)
        except WorkerEndedError as error:
            raise ExportError(f"{self.path.name!r} cannot be run: the runtime {error}") from None
        if "error" in said:
            text = str(said["error"])
            raise ExportError(text if self.path.name in text else f"{self.path.name!r}: {text}")
        return said


def inspect_file(path: Path, labels: int = 0) -> Artifact:
    """What a file that others made tells of itself; `labels` as FileApart takes them. Raises ExportError."""
    with FileApart(path, labels=labels) as opened:
        return opened.artifact


def open_artifact(path: str | Path, labels: int = 0) -> Artifact:
    """Load the record beside a file; without one, describe the file, read in a process of its own.

    Args:
        path: an exported file.
        labels: number of known class names, which helps to find the scores among several outputs.

    Raises ExportError for a damaged file, ConfigError for a damaged record.
    """
    finish(Path(path).expanduser())
    file = existing_path(path, "file")
    return load_record_of(Artifact, file) if has_record(file) else inspect_file(file, labels)


class _Loaded:
    """The child's side."""

    def __init__(self) -> None:
        self.runner: Any = None
        self.artifact: Artifact | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        from mobilezoo_export.endings import scores_output

        if request["op"] == "open":
            return self._open(Path(request["path"]), request["artifact"], request["labels"])
        if self.artifact and "scores" in self.artifact.undeclared:
            scores_output(self.runner.outputs, len(self.artifact.labels))  # tells why there are none
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
        return {"artifact": artifact.model_dump(mode="json"), "runtime": self.runner.runtime}


def main() -> None:
    """Answer until the parent is gone."""
    workers.main(_Loaded().answer)


if __name__ == "__main__":
    main()
