"""Convert one file and run it, in this process or in a worker process whose crash costs only that file.

The traced program (`torch.export.save`, no pickled code), images and logits (`.npy`) are passed as files, the rest in
the requests and replies of `mobilezoo.workers`. A worker converts many files, so its toolchain is imported once.
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
from mobilezoo_export.half_precision import beyond_half, fed_to_graph
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
"""A worker whose peak exceeds this is replaced before the next network: toolchains keep memory allocated."""


class Job(Record):
    """Request to a worker: one file to convert and run."""

    target: str
    spec: ExportSpec
    output: str
    work: str
    """Folder with the program and images."""
    logits: str
    """File for the logits, where the file could be run."""


class Outcome(Record):
    """Result of one conversion."""

    warnings: tuple[str, ...] = ()
    runtime: str | None = None
    coverage: Coverage | None = None
    error: str | None = None
    system_error: int | None = None
    """`errno` of an OSError (a full disk), which the caller raises again."""


def convert(
    model: "nn.Module",
    target: str,
    spec: ExportSpec,
    path: Path,
    images: np.ndarray,
    calibration: Sequence[np.ndarray] = (),
) -> tuple[Outcome, np.ndarray | None]:
    """Convert a network to one file, then run the file in its own runtime.

    Args:
        model: traced, folded graph that takes `spec.shape`.
        target: an export target.
        spec: input, precision and options of the file.
        path: file to write.
        images: preprocessed float32 NCHW images to run the file on.
        calibration: preprocessed float32 NCHW batches for precisions that need them.

    Returns:
        The outcome, and the file's logits (images, classes); None where the file cannot be run on this machine.

    Raises:
        ExportError: the converter or the runtime failed, or a flexible file fails at another size.
    """
    exporter = load_exporter(target)
    if spec.precision in exporter.half_arithmetic:
        spec = spec.model_copy(update={"beyond_half": beyond_half(model, fed_to_graph(images, spec), spec.batch)})
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
        runner = exporter.open_exact(path, 1, None)
        runner.input = exporter.input_spec(spec)
        runner.pixels = spec.preprocessing if spec.options.image else None
        logits = runner.run(images[: exporter.proof_images])
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
    """Folder of the network that it converted last."""
    peak_mb: float = 0.0


class Converters:
    """One worker process per target, started when first needed, kept for later files, replaced after a crash."""

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
        """Run `convert` in the target's worker process.

        Args:
            target: an export target.
            spec: input, precision and options of the file.
            path: file to write.
            work: folder with the traced program, the images and the calibration batches.

        Returns:
            The outcome, and the file's logits (images, classes); None where the file cannot be run on this machine.

        Raises:
            ExportError: the worker crashed, or `convert` raised it there.
            OSError: the worker could not write.
        """
        logits = work / f"{target}.{spec.precision}.npy"
        job = Job(target=target, spec=spec, output=str(path), work=str(work), logits=str(logits))
        child = self._child(target, work)
        try:
            reply = child.worker.call({"op": "convert", "job": job.model_dump(mode="json")})
        except WorkerEndedError as error:
            self._end(target)
            raise ExportError(f"{spec.model}: the {target} converter {error}; other targets are unaffected") from None
        if "error" in reply:
            self._end(target)
            raise ExportError(f"{spec.model}: the {target} converter failed: {reply['error']}")
        child.peak_mb = float(reply["peak_mb"])
        outcome = Outcome.parse(reply["outcome"], f"the {target} converter")
        if outcome.system_error is not None:
            raise OSError(outcome.system_error, os.strerror(outcome.system_error))
        if outcome.error:
            raise ExportError(outcome.error)
        return outcome, np.load(logits) if logits.is_file() else None

    def _child(self, target: str, work: Path) -> _Child:
        """Return the target's worker; a new one if there is none or if earlier networks left it too large."""
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
    """Load a traced program; cached, since each network is converted in several precisions."""
    import torch

    return torch.export.load(path).module(check_guards=False)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Handle one request in the worker: convert, run, return the outcome."""
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
    """Worker entry point."""
    import torch

    torch.set_num_threads(1)
    workers.main(_answer)


if __name__ == "__main__":
    _main()
