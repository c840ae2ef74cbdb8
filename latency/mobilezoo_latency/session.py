"""The parent's side of a worker: start it, ask, turn every way it can end into one line."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from mobilezoo.artifacts import ProcessRun, Protocol, Slice
from mobilezoo.errors import DeviceError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ANSWER_LIMIT_S = 900.0
"""Beyond a request's own duration."""


class WorkerSession:
    """A fresh process that holds one loaded artefact. Use as a context manager.

    Samples, slices and figures are kept in the order they came; `run()` gives the record.
    """

    def __init__(self, artifact: Path, protocol: Protocol, command: list[str] | None = None) -> None:
        self.artifact, self.protocol = artifact, protocol
        self.samples_ms: list[float] = []
        self.slices: list[Slice] = []
        self._shares: list[tuple[float, float, float | None]] = []
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "mobilezoo_latency.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONPATH": _python_path()},
            text=True,
        )

    def __enter__(self) -> "WorkerSession":
        try:
            self.opened = self._ask({"op": "open", "artifact": str(self.artifact), "protocol": _plain(self.protocol)})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            if pipe is not None:
                pipe.close()

    @property
    def runtime(self) -> str:
        """Name and version of what computes, as the worker found it."""
        return str(self.opened["runtime"])

    def sample(self, min_samples: int, min_s: float) -> list[float]:
        """One slice of timed runs, in ms; also kept for `run()`."""
        answer = self._ask({"op": "sample", "min_samples": min_samples, "min_s": min_s}, min_s)
        self.samples_ms += answer["samples_ms"]
        self.slices.append(Slice.parse(answer["slice"], "worker"))
        self._shares.append((answer["wall_s"], answer["cpu_share"], answer["other_load"]))
        samples: list[float] = answer["samples_ms"]
        return samples

    def close(self) -> tuple[ProcessRun, dict[str, str]]:
        """End the worker; what the process cost, and what the runtime really used."""
        closed = self._ask({"op": "close"})
        wall = sum(w for w, _, _ in self._shares)
        loads = [(w, load) for w, _, load in self._shares if load is not None]
        record = ProcessRun(
            load_ms=self.opened["load_ms"],
            first_run_ms=self.opened["first_run_ms"],
            warmup_runs=self.opened["warmup_runs"],
            warmup_settled=self.opened["warmup_settled"],
            runs_per_sample=self.opened["runs_per_sample"],
            memory_bytes=closed["memory_bytes"],
            cpu_share=sum(w * share for w, share, _ in self._shares) / wall if wall else None,
            other_load=sum(w * load for w, load in loads) / sum(w for w, _ in loads) if loads else None,
            sentinel_before_ms=self.opened["sentinel_before_ms"],
            slices=tuple(self.slices),
        )
        return record, closed["obtained"]

    def _ask(self, request: dict[str, Any], duration_s: float = 0.0) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        limit_s = ANSWER_LIMIT_S + 2 * duration_s
        timer = threading.Timer(limit_s, self._process.kill)
        timer.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if not line:
            raise DeviceError(f"{self.artifact.name}: {self._ending(limit_s if expired else None)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DeviceError(f"{self.artifact.name} cannot be timed: {answer['error']}")
        return answer

    def _ending(self, expired_s: float | None) -> str:
        """Why a worker went silent: its signal or exit status, and the last thing it said."""
        code = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        if expired_s is not None:
            how = f"no answer for {expired_s:.0f} s"
        elif code < 0:
            how = f"the runtime ended with {signal.Signals(-code).name}"
        else:
            how = f"the worker ended with status {code}"
        return f"{how}: {said[-1]}" if said else how


def _plain(protocol: Protocol) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(protocol.model_dump_json())
    return plain


def _python_path() -> str:
    """Let the worker find the very packages this process imported."""
    import mobilezoo
    import mobilezoo_export
    import mobilezoo_latency

    packages = (mobilezoo, mobilezoo_export, mobilezoo_latency)
    folders = [str(Path(str(p.__file__)).resolve().parents[1]) for p in packages]
    return os.pathsep.join([*dict.fromkeys(folders), *filter(None, [os.environ.get("PYTHONPATH")])])
