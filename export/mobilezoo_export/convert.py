"""Make one file and run it: in this process, or in one of its own that may crash without taking the others along.

The traced program (`torch.export.save`, no pickled code), images and logits (`.npy`) travel as files, the rest in the
requests and answers of `mobilezoo.workers`. A process stays for many files, so that its toolchain is imported once.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo import workers
from mobilezoo.artifacts import Coverage
from mobilezoo.config import Record
from mobilezoo.errors import ExportError, MobilezooError, first_line
from mobilezoo.memory import peak_resident_mb
from mobilezoo.scratch import temporary_folder
from mobilezoo.workers import Worker, WorkerEndedError
from mobilezoo_export.coverage import coverage
from mobilezoo_export.flexible import check_other_sizes
from mobilezoo_export.provenance import shared_provenance
from mobilezoo_export.records import ExportSpec
from mobilezoo_export.registry import load_exporter

if TYPE_CHECKING:
    from torch import nn

PROGRAM = "program.pt2"
IMAGES = "images.npy"
CALIBRATION = "calibration.npy"
COMMAND = [sys.executable, "-m", "mobilezoo_export.convert"]
MOST_MEMORY_MB = 2000
"""A process that ever held more is replaced before the next network: toolchains do not give all of it back."""


class Job(Record):
    """What the child is told."""

    target: str
    spec: ExportSpec
    output: str
    work: str
    """Folder with the program and images."""
    logits: str
    """File for the logits, where the file could be run."""


class Outcome(Record):
    """What the child answers."""

    warnings: tuple[str, ...] = ()
    runtime: str | None = None
    coverage: Coverage | None = None
    error: str | None = None
    system_error: int | None = None
    """Number of the system's error, where it was one: a full disk is the caller's matter."""


def convert(
    model: "nn.Module",
    target: str,
    spec: ExportSpec,
    path: Path,
    images: np.ndarray,
    calibration: Sequence[np.ndarray] = (),
) -> tuple[Outcome, np.ndarray | None]:
    """Write `path` and compute its logits of `images` in its own runtime. Raises ExportError in one line."""
    exporter = load_exporter(target)
    try:
        with shared_provenance():
            warnings = exporter.export(model, spec, path, calibration)
    except (MobilezooError, OSError):
        raise
    except Exception as error:
        raise ExportError(
            f"the {target} converter refused {spec.model}: {type(error).__name__}: {first_line(error)}"
        ) from error
    if exporter.why_not_runnable(spec):
        return Outcome(warnings=tuple(warnings), coverage=coverage(exporter, path)), None
    try:
        # Without a record, the runner would have to guess the layout of a square, few-pixel input.
        runner = exporter.open(path, 1, None)
        runner.input = exporter.input_spec(spec)
        runner.pixels = spec.preprocessing if spec.options.image else None
        logits = runner.run(images)
        check_other_sizes(model, spec, exporter, runner)
    except (MobilezooError, OSError):
        raise
    except Exception as error:
        raise ExportError(
            f"{spec.model}: the {target} file cannot be run: {type(error).__name__}: {first_line(error)}"
        ) from error
    return Outcome(warnings=tuple(warnings), runtime=runner.runtime, coverage=coverage(exporter, path)), logits


@dataclass
class _Child:
    """A running converter."""

    worker: Worker
    work: Path | None = None
    """Of the network that it converted last."""
    peak_mb: float = 0.0


class Converters:
    """A process per target, started when first needed, kept for the next files and replaced after a crash."""

    def __init__(self) -> None:
        self._running: dict[str, _Child] = {}
        self._held = ExitStack()

    def __enter__(self) -> "Converters":
        self._folder = self._held.enter_context(temporary_folder("convert"))
        return self

    def __exit__(self, *_: object) -> None:
        for target in list(self._running):
            self._end(target)
        self._held.close()

    def convert(self, target: str, spec: ExportSpec, path: Path, work: Path) -> tuple[Outcome, np.ndarray | None]:
        """`convert` in the target's process; `work` holds the program and the images. Raises ExportError, OSError."""
        logits = work / f"{target}.{spec.precision}.npy"
        job = Job(target=target, spec=spec, output=str(path), work=str(work), logits=str(logits))
        child = self._child(target, work)
        try:
            said = child.worker.call({"op": "convert", "job": job.model_dump(mode="json")})
        except WorkerEndedError as error:
            self._end(target)
            raise ExportError(f"{spec.model}: the {target} converter {error}; other targets are unaffected") from None
        if "error" in said:
            self._end(target)
            raise ExportError(f"{spec.model}: the {target} converter failed: {said['error']}")
        child.peak_mb = float(said["peak_mb"])
        outcome = Outcome.parse(said["outcome"], f"the {target} converter")
        if outcome.system_error is not None:
            raise OSError(outcome.system_error, os.strerror(outcome.system_error))
        if outcome.error:
            raise ExportError(outcome.error)
        return outcome, np.load(logits) if logits.is_file() else None

    def _child(self, target: str, work: Path) -> _Child:
        """The target's process, a new one where there is none or where it has grown over other networks."""
        child = self._running.get(target)
        if child is not None and child.work != work and child.peak_mb > MOST_MEMORY_MB:
            self._end(target)
            child = None
        if child is None:
            child = self._running[target] = _Child(Worker(COMMAND, {"TMPDIR": str(self._folder)}))
        child.work = work
        return child

    def _end(self, target: str) -> None:
        self._running.pop(target).worker.end()


@lru_cache(maxsize=1)
def _program(path: Path) -> "nn.Module":
    """One network is asked for in several precisions."""
    import torch

    return torch.export.load(path).module(check_guards=False)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """The child's side: do the job, tell its outcome."""
    job = Job.parse(request["job"], "job")
    work = Path(job.work)
    images = np.load(work / IMAGES)
    calibration = np.load(work / CALIBRATION) if (work / CALIBRATION).is_file() else ()
    try:
        outcome, logits = convert(_program(work / PROGRAM), job.target, job.spec, Path(job.output), images, calibration)
        if logits is not None:
            np.save(job.logits, logits)
    except MobilezooError as error:
        outcome = Outcome(error=str(error))
    except OSError as error:
        outcome = Outcome(error=str(error), system_error=error.errno)
    return {"outcome": outcome.model_dump(mode="json"), "peak_mb": peak_resident_mb()}


def _main() -> None:
    """The child."""
    import torch

    torch.set_num_threads(1)
    workers.main(_answer)


if __name__ == "__main__":
    _main()
