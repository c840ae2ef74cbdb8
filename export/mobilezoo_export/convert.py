"""Make one file and run it: in this process, or in one of its own that may crash without taking the others along.

The process boundary is plain files: the traced program (`torch.export.save`, no pickled code), the spec as JSON, images
and logits as `.npy`. The child is `python -m mobilezoo_export.convert JOB`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilezoo.artifacts import Coverage
from mobilezoo.config import Record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo_export.contract import ExportSpec
from mobilezoo_export.coverage import coverage
from mobilezoo_export.registry import load_exporter, load_runner

if TYPE_CHECKING:
    from torch import nn

PROGRAM = "program.pt2"
IMAGES = "images.npy"
CALIBRATION = "calibration.npy"
LOGITS = "logits.npy"
JOB = "job.json"
OUTCOME = "outcome.json"


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
        warnings = exporter.export(model, spec, path, calibration)
    except (MobilezooError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"the {target} converter refused {spec.model}: {one_line(error)}") from error
    if exporter.not_run(spec):
        return Outcome(warnings=tuple(warnings), coverage=coverage(target, path)), None
    try:
        # Without a record, the runner would have to guess the layout of a square, few-pixel input.
        runner = load_runner(path)
        runner.input = exporter.input_spec(spec)
        runner.pixels = spec.preprocessing if spec.options.image else None
        logits = runner.run(images)
    except (MobilezooError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"{spec.model}: the {target} file cannot be run: {one_line(error)}") from error
    return Outcome(warnings=tuple(warnings), runtime=runner.runtime, coverage=coverage(target, path)), logits


def convert_isolated(target: str, spec: ExportSpec, path: Path, work: Path) -> tuple[Outcome, np.ndarray | None]:
    """`convert` in a process of its own; `work` holds the program and the images. Raises ExportError."""
    scratch = work / f"{target}.{spec.precision}"
    scratch.mkdir(exist_ok=True)
    job = Job(target=target, spec=spec, output=str(path), work=str(work), scratch=str(scratch))
    (scratch / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "mobilezoo_export.convert", str(scratch / JOB)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, errors="replace", check=False)
    answer = scratch / OUTCOME
    if not answer.is_file():
        raise ExportError(f"the {target} converter {_how_it_ended(done)} on {spec.model}; other targets are unaffected")
    outcome = Outcome.parse(json.loads(answer.read_text(encoding="utf-8")), str(answer))
    if outcome.error:
        raise ExportError(outcome.error)
    logits = scratch / LOGITS
    return outcome, np.load(logits) if logits.is_file() else None


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first telling line of an exception's text, its type in front."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines[0] if lines else 'no message')[:limit]}"


def _how_it_ended(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"ended with code {done.returncode}" + (f" ({lines[-1][:200]})" if lines else "")


def _main(job_path: Path) -> None:
    """The child: read the job, do it, answer. A crash leaves no answer, and the parent says so."""
    import torch

    torch.set_num_threads(1)
    job = Job.parse(json.loads(job_path.read_text(encoding="utf-8")), str(job_path))
    work, scratch = Path(job.work), Path(job.scratch)
    images = np.load(work / IMAGES)
    calibration = np.load(work / CALIBRATION) if (work / CALIBRATION).is_file() else ()
    try:
        model = torch.export.load(work / PROGRAM).module(check_guards=False)
        outcome, logits = convert(model, job.target, job.spec, Path(job.output), images, calibration)
        if logits is not None:
            np.save(scratch / LOGITS, logits)
    except (MobilezooError, OSError) as error:
        outcome = Outcome(error=str(error))
    temporary = scratch / f"{OUTCOME}.part"
    temporary.write_text(outcome.model_dump_json(), encoding="utf-8")
    temporary.replace(scratch / OUTCOME)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
