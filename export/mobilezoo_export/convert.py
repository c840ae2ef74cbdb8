"""Make one file and run it: in this process, or in one of its own that may crash without taking the others along.

The process boundary is plain files: the traced program (`torch.export.save`, no pickled code), the spec as JSON, images
and logits as `.npy`. The child is `python -m mobilezoo_export.convert`: it reads a job's path per line and answers each
with a line, so that a toolchain is imported once for many files.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from mobilezoo.artifacts import Coverage
from mobilezoo.config import Record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.memory import peak_resident_mb
from mobilezoo.workers import end_with_parent
from mobilezoo_export.contract import ExportSpec
from mobilezoo_export.coverage import coverage
from mobilezoo_export.flexible import check_other_sizes
from mobilezoo_export.provenance import shared_provenance
from mobilezoo_export.registry import load_exporter, load_runner

if TYPE_CHECKING:
    from torch import nn

PROGRAM = "program.pt2"
IMAGES = "images.npy"
CALIBRATION = "calibration.npy"
LOGITS = "logits.npy"
JOB = "job.json"
OUTCOME = "outcome.json"
DONE = "done"
MOST_MEMORY_MB = 2000
"""A process that ever held more is replaced before the next network: toolchains do not give all of it back."""


class Job(Record):
    """What the child is told."""

    target: str
    spec: ExportSpec
    output: str
    work: str
    """Folder with the program and images; logits and outcome go to `scratch`."""
    scratch: str


class Outcome(Record):
    """What the child answers."""

    warnings: tuple[str, ...] = ()
    runtime: str | None = None
    coverage: Coverage | None = None
    error: str | None = None


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
        raise ExportError(f"the {target} converter refused {spec.model}: {one_line(error)}") from error
    if exporter.not_run(spec):
        return Outcome(warnings=tuple(warnings), coverage=coverage(exporter, path)), None
    try:
        # Without a record, the runner would have to guess the layout of a square, few-pixel input.
        runner = load_runner(path)
        runner.input = exporter.input_spec(spec)
        runner.pixels = spec.preprocessing if spec.options.image else None
        logits = runner.run(images)
        check_other_sizes(model, spec, exporter, runner)
    except (MobilezooError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"{spec.model}: the {target} file cannot be run: {one_line(error)}") from error
    return Outcome(warnings=tuple(warnings), runtime=runner.runtime, coverage=coverage(exporter, path)), logits


@dataclass
class _Child:
    """A running converter."""

    process: subprocess.Popen[str]
    errors: IO[str]
    work: Path | None = None
    """Of the network that it converted last."""
    peak_mb: float = 0.0


class Converters:
    """A process per target, started when first needed, kept for the next files and replaced after a crash."""

    def __init__(self) -> None:
        self._running: dict[str, _Child] = {}

    def __enter__(self) -> "Converters":
        return self

    def __exit__(self, *_: object) -> None:
        for target in list(self._running):
            self._end(target)

    def convert(self, target: str, spec: ExportSpec, path: Path, work: Path) -> tuple[Outcome, np.ndarray | None]:
        """`convert` in the target's process; `work` holds the program and the images. Raises ExportError."""
        scratch = work / f"{target}.{spec.precision}"
        scratch.mkdir(exist_ok=True)
        job = Job(target=target, spec=spec, output=str(path), work=str(work), scratch=str(scratch))
        (scratch / JOB).write_text(job.model_dump_json(), encoding="utf-8")
        if not self._ask(target, scratch / JOB):
            end = self._end(target)
            raise ExportError(f"the {target} converter {end} on {spec.model}; other targets are unaffected")
        outcome = Outcome.parse(json.loads((scratch / OUTCOME).read_text(encoding="utf-8")), str(scratch / OUTCOME))
        if outcome.error:
            raise ExportError(outcome.error)
        logits = scratch / LOGITS
        return outcome, np.load(logits) if logits.is_file() else None

    def _ask(self, target: str, job: Path) -> bool:
        """Whether the process has done the job; False when it died over it."""
        work, child = job.parent.parent, self._running.get(target)
        if child is not None and child.work != work and child.peak_mb > MOST_MEMORY_MB:
            self._end(target)
            child = None
        child = self._running[target] = child or _start()
        child.work = work
        assert child.process.stdin is not None
        assert child.process.stdout is not None
        try:
            child.process.stdin.write(f"{job}\n")
            child.process.stdin.flush()
        except BrokenPipeError:
            return False
        done = next((line for line in iter(child.process.stdout.readline, "") if line.startswith(DONE)), None)
        child.peak_mb = float(done.removeprefix(DONE)) if done else 0.0
        return done is not None

    def _end(self, target: str) -> str:
        """Close a process and tell how it ended."""
        child = self._running.pop(target)
        with child.errors as errors:
            child.process.communicate()
            errors.seek(0)
            return _how_it_ended(child.process.returncode, errors.read())


def _start() -> _Child:
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (it lives as long as the process)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "mobilezoo_export.convert"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment)
    return _Child(process, errors)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first telling line of an exception's text, its type in front."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines[0] if lines else 'no message')[:limit]}"


def _how_it_ended(code: int, told: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line for line in told.splitlines() if line.strip()]
    return f"ended with code {code}" + (f" ({lines[-1][:200]})" if lines else "")


@lru_cache(maxsize=1)
def _program(path: Path) -> "nn.Module":
    """One network is asked for in several precisions."""
    import torch

    return torch.export.load(path).module(check_guards=False)


def _do(job_path: Path) -> None:
    """Read the job, do it, leave the outcome."""
    job = Job.parse(json.loads(job_path.read_text(encoding="utf-8")), str(job_path))
    work, scratch = Path(job.work), Path(job.scratch)
    images = np.load(work / IMAGES)
    calibration = np.load(work / CALIBRATION) if (work / CALIBRATION).is_file() else ()
    try:
        outcome, logits = convert(_program(work / PROGRAM), job.target, job.spec, Path(job.output), images, calibration)
        if logits is not None:
            np.save(scratch / LOGITS, logits)
    except (MobilezooError, OSError) as error:
        outcome = Outcome(error=str(error))
    (scratch / OUTCOME).write_text(outcome.model_dump_json(), encoding="utf-8")


def _main() -> None:
    """The child: a crash leaves its question unanswered, and the parent says so."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what toolchains print is no answer
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        _do(Path(line.rstrip("\n")))
        print(DONE, peak_resident_mb(), file=answers, flush=True)


if __name__ == "__main__":
    _main()
