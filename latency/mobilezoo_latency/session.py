"""The parent's side of a worker: starts it, sends requests, turns every way it can end into one line."""

import sys
from pathlib import Path
from typing import Any, Literal

from mobilezoo.errors import DeviceError
from mobilezoo.latency_report import ProcessRun, Protocol, Slice
from mobilezoo.workers import Worker, WorkerEndedError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
COMMAND = [sys.executable, "-m", "mobilezoo_latency.worker"]
Clock = Literal["wall", "cpu"]
"""Seconds that pass, or seconds that the process has a core for: those are the same on a busy machine."""
ANSWER_LIMIT_S = 900.0
"""Seconds for an answer, beyond the request's own duration."""


class WorkerSession:
    """A fresh process that holds one loaded artifact. Use as a context manager.

    Samples and slices are kept in the order they came; `close` returns the record.
    """

    def __init__(
        self, artifact: Path, protocol: Protocol, command: list[str] | None = None, clock: Clock = "wall"
    ) -> None:
        self.artifact, self.protocol, self.clock = artifact, protocol, clock
        self.samples_ms: list[float] = []
        self.slices: list[Slice] = []
        self._shares: list[tuple[float, float, float | None]] = []
        self._worker = Worker(command or COMMAND, dict.fromkeys(ONE_THREAD, "1"))

    def __enter__(self) -> "WorkerSession":
        try:
            protocol = self.protocol.model_dump(mode="json")
            self.opened = self._request(
                {"op": "open", "artifact": str(self.artifact), "protocol": protocol, "clock": self.clock}
            )
        except BaseException:
            self._worker.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()

    @property
    def runtime(self) -> str:
        """Name and version of the runtime, as loaded in the worker."""
        return str(self.opened["runtime"])

    @property
    def cpu_share(self) -> float | None:
        """CPU seconds per second of all samples so far; below the thread count where the process waited for a core."""
        wall = sum(w for w, _, _ in self._shares)
        return sum(w * share for w, share, _ in self._shares) / wall if wall else None

    def sample(self, min_samples: int, min_s: float) -> list[float]:
        """Takes one slice of samples, also kept in `samples_ms` and for `close`.

        Args:
            min_samples: fewest samples.
            min_s: fewest seconds of timed runs, together.

        Returns:
            Samples in ms per run.
        """
        answer = self._request({"op": "sample", "min_samples": min_samples, "min_s": min_s}, min_s)
        self.samples_ms += answer["samples_ms"]
        if "slice" in answer:
            self.slices.append(Slice.parse(answer["slice"], "worker"))
        self._shares.append((answer["wall_s"], answer["cpu_share"], answer["other_load"]))
        samples: list[float] = answer["samples_ms"]
        return samples

    def close(self) -> tuple[ProcessRun, dict[str, str]]:
        """Ends the measurement. Returns the record of the process and what the runtime reports of itself."""
        closed = self._request({"op": "close"})
        loads = [(w, load) for w, _, load in self._shares if load is not None]
        record = ProcessRun(
            load_ms=self.opened["load_ms"],
            first_run_ms=self.opened["first_run_ms"],
            warmup_runs=self.opened["warmup_runs"],
            warmup_settled=self.opened["warmup_settled"],
            runs_per_sample=self.opened["runs_per_sample"],
            memory_bytes=closed["memory_bytes"],
            cpu_share=self.cpu_share,
            other_load=sum(w * load for w, load in loads) / sum(w for w, _ in loads) if loads else None,
            sentinel_before_ms=self.opened["sentinel_before_ms"],
            slices=tuple(self.slices),
        )
        return record, closed["runtime_info"]

    def _request(self, request: dict[str, Any], duration_s: float = 0.0) -> dict[str, Any]:
        return _answer(self._worker, self.artifact, request, ANSWER_LIMIT_S + 2 * duration_s)


def request_once(artifact: Path, request: dict[str, Any], command: list[str] | None = None) -> dict[str, Any]:
    """Starts a worker for one request about a file and returns its answer.

    Args:
        artifact: the file; added to the request.
        request: JSON object with the key `op`, see `worker.py`.
        command: command line of the worker, for tests.

    Raises:
        DeviceError: the worker crashed, did not answer in time, or answered with an error.
    """
    worker = Worker(command or COMMAND, dict.fromkeys(ONE_THREAD, "1"))
    try:
        return _answer(worker, artifact, {**request, "artifact": str(artifact)}, ANSWER_LIMIT_S)
    finally:
        worker.end()


def _answer(worker: Worker, artifact: Path, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    try:
        answer = worker.call(request, limit_s)
    except WorkerEndedError as error:
        raise DeviceError(f"{artifact.name}: the runtime {error}") from None
    if "error" in answer:
        raise DeviceError(f"{artifact.name} cannot be timed: {answer['error']}")
    return answer
