"""The fresh process in which one artifact is loaded and timed: `python -m mobilezoo_latency.worker`.

Requests come as JSON lines on stdin, answers go as JSON lines to the original stdout; whatever a runtime prints is sent
to stderr. Requests: {"op": "open", "artifact", "protocol", "clock"}, {"op": "sample", "min_samples", "min_s"},
{"op": "close"}; or {"op": "operators", "artifact", "target", "threads"} alone.
"""

import contextlib
import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo import workers
from mobilezoo.errors import DeviceError, MobilezooError
from mobilezoo.files import size_of
from mobilezoo.latency_report import Protocol
from mobilezoo.memory import limit_memory_for
from mobilezoo_latency import machine
from mobilezoo_latency.protocol import WarmUp, runs_per_sample, sample, timer_step_s, warm_up
from mobilezoo_latency.sentinel import Sentinel

if TYPE_CHECKING:
    from mobilezoo_export.contract import Exporter

SEED = 0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What times runs: seconds that pass, or seconds that the process has a core for."""


class Session:
    """One loaded artifact and the counters since its first timed run."""

    def __init__(self, artifact: str, protocol: Protocol, clock: str = "wall") -> None:
        from mobilezoo_export.feeding import noise_for
        from mobilezoo_export.registry import exporter_of, start_runner, with_record

        self.clock = CLOCKS[clock]
        path, record = with_record(artifact)  # its checksum reads the whole file, which is no part of loading
        _import_runtime(exporter_of(path, record))
        self.sentinel = Sentinel()
        self.sentinel_before_ms = self.sentinel.measure() if clock == "wall" else 0.0
        memory = machine.peak_memory_bytes()
        start = time.perf_counter()
        self.runner = start_runner(path, record, protocol.threads)
        self.load_ms = (time.perf_counter() - start) * 1e3
        if not self.runner.measurable:
            raise DeviceError(f"{self.runner.runtime} checks what a file computes and is no runtime to time")
        self.runner.feed(noise_for(self.runner.inputs, SEED))
        self.first_run_ms = self.time_runs(1) * 1e3
        self.warm: WarmUp = warm_up(self.time_runs, protocol, time.perf_counter)
        self.runs_per_sample = runs_per_sample(self.warm.run_s, timer_step_s(self.clock))
        self.memory_before = memory
        self.threads_before = machine.thread_times_ns()
        self.began = time.perf_counter()
        self.timed_s = self.own_s = 0.0

    def time_runs(self, runs: int) -> float:
        """Performs `runs` runs and returns their seconds."""
        invoke = self.runner.invoke
        start = self.clock()
        for _ in range(runs):
            invoke()
        return self.clock() - start

    def opened(self) -> dict[str, Any]:
        """Answer to `open`: times of loading and warm-up."""
        return {
            "runtime": self.runner.runtime,
            "load_ms": self.load_ms,
            "first_run_ms": self.first_run_ms,
            "warmup_runs": self.warm.runs,
            "warmup_settled": self.warm.settled,
            "runs_per_sample": self.runs_per_sample,
            "sentinel_before_ms": self.sentinel_before_ms,
        }

    def slice(self, min_samples: int, min_s: float) -> dict[str, Any]:
        """Takes samples without a break, then runs the sentinel; CPU shares cover the samples alone.

        Seconds of CPU need no sentinel: it shows what else a machine does, which they leave out.

        Args:
            min_samples: fewest samples.
            min_s: fewest seconds of timed runs, together.

        Returns:
            The answer to `sample`: samples in ms, wall time, CPU shares, and the fields of a `Slice`.
        """
        start, own, before = time.perf_counter(), time.process_time(), machine.cpu_times()
        samples = sample(self.time_runs, self.runs_per_sample, min_samples, min_s)
        wall, own = time.perf_counter() - start, time.process_time() - own
        load = machine.other_load(before, machine.cpu_times(), own)
        taken = {"samples_ms": samples, "wall_s": wall, "cpu_share": own / wall, "other_load": load}
        if self.clock is CLOCKS["cpu"]:
            return taken
        return taken | {
            "slice": {
                "start_s": start - self.began,
                "samples": len(samples),
                "sentinel_ms": self.sentinel.measure(),
                "temperature_c": machine.temperature_c(),
                "frequency_mhz": machine.frequency_mhz(),
            },
        }

    def closed(self) -> dict[str, Any]:
        """Answer to `close`: memory and what the runtime used."""
        peak = machine.peak_memory_bytes()
        grown = None if peak is None or self.memory_before is None else peak - self.memory_before
        threads = machine.busy_threads(self.threads_before, machine.thread_times_ns())
        counted = {"threads": str(threads)} if threads is not None else {}
        return {"memory_bytes": grown, "runtime_info": {**counted, **self.runner.runtime_info()}}


def _import_runtime(exporter: "Exporter") -> None:
    """Import the modules that the runner needs, so that `load_ms` excludes Python's own loading."""
    for module in exporter.runtime.modules if exporter.runtime else ():
        with contextlib.suppress(ImportError):  # the runner names what to install
            importlib.import_module(module)


def _operators(path: Path, target: str, threads: int) -> dict[str, Any]:
    from mobilezoo_export.registry import load_exporter

    exporter = load_exporter(target)
    _import_runtime(exporter)
    found = exporter.profile_operators(path, threads)
    return {**found._asdict(), "operators": [list(row) for row in found.operators]}


def main() -> None:
    """Answers requests until "close" or the end of input (the parent died)."""
    session: Session | None = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal session
        if "artifact" in request:
            limit_memory_for(size_of(Path(request["artifact"])))
        if request["op"] == "open":
            session = Session(request["artifact"], Protocol.parse(request["protocol"], "request"), request["clock"])
            return session.opened()
        if request["op"] == "operators":
            return _operators(Path(request["artifact"]), request["target"], request["threads"])
        if session is None:
            raise MobilezooError(f"request {request['op']!r} before 'open'")
        if request["op"] == "sample":
            return session.slice(request["min_samples"], request["min_s"])
        return session.closed()

    workers.main(answer)


if __name__ == "__main__":
    main()
