"""Runners that the user brings: the vendors' own benchmark tools, driven by the same protocol as our runner.

Command lines and output formats are those of TensorFlow Lite's `benchmark_model` (tools/benchmark), ONNX Runtime's
`onnxruntime_perf_test` (test/perftest) and ExecuTorch's `executor_runner` (examples/portable). The first prints only
statistics of its runs, so each of its calls gives one sample, the mean of its runs; the others print every run.
"""

import math
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, printable
from mobilezoo.latency_report import Protocol
from mobilezoo_latency.remote.parsing import SliceTimes, time_ms
from mobilezoo_latency.stats import median

TIMINGS_BEGIN = "Inference timings in us: "
TIMINGS = re.compile(
    rf"{TIMINGS_BEGIN}Init: ([^,\s]+), First inference: ([^,\s]+), .*Inference \(avg\): ([^,\s]+)", re.ASCII
)
LONGEST_LINE = 2000
"""Longest text that is searched by a pattern with a gap in it, in characters."""
CALLS = 16
"""Calls per slice of a runner that reports only the mean of its runs; each gives one sample."""
PILOT_RUNS = 10
Delegate = Literal["cpu", "gpu", "nnapi", "qnn"]


LocalPath = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,1000}$")]


class RunnerConfig(Record):
    """A binary for the device."""

    kind: Literal["benchmark_model", "onnxruntime_perf_test", "executor_runner"]
    path: LocalPath = Field(description="the binary on this computer; it is copied to the device")
    libraries: tuple[LocalPath, ...] = Field(default=(), max_length=50, description="shared libraries to put beside it")
    delegate: Delegate = Field(default="cpu", description="what should compute, where the runner has it")


class Runner(ABC):
    """One tool: the files it takes, its command line, its output format."""

    target: ClassVar[str]
    runtime: ClassVar[str]
    delegates: ClassVar[tuple[str, ...]]

    def __init__(self, config: RunnerConfig) -> None:
        self.config = config

    def check(self) -> None:
        """Raise DeviceError unless the files are there and the runner has the delegate."""
        for path in (self.config.path, *self.config.libraries):
            if not Path(path).expanduser().is_file():
                raise DeviceError(f"runner.path: no file {path!r}: build or download {self.config.kind} for the device")
        if self.config.delegate not in self.delegates:
            known = ", ".join(self.delegates)
            raise DeviceError(f"{self.config.kind} has no delegate {self.config.delegate!r}: choose from {known}")

    @abstractmethod
    def slice(
        self, run: Callable[[str], str], model: str, protocol: Protocol, min_samples: int, min_s: float
    ) -> SliceTimes:
        """Times one slice.

        Args:
            run: calls the tool with these arguments and returns its output.
            model: path of the file on the device.
            protocol: gives warm-up and threads.
            min_samples: fewest samples.
            min_s: fewest seconds of timed runs, together.

        Raises:
            DeviceError: the tool failed, or its output lacks what is needed.
        """


class BenchmarkModel(Runner):
    """TensorFlow Lite's tool."""

    target = "litert"
    runtime = "TFLite benchmark_model"
    delegates = ("cpu", "gpu", "nnapi")

    def slice(
        self, run: Callable[[str], str], model: str, protocol: Protocol, min_samples: int, min_s: float
    ) -> SliceTimes:
        use = {"cpu": "--use_xnnpack=true", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}[self.config.delegate]
        arguments = (
            f"--graph={shlex.quote(model)} --num_threads={protocol.threads} {use} "
            f"--warmup_runs={max(1, protocol.warmup_runs)} --warmup_min_secs={protocol.warmup_s} "
            f"--num_runs={math.ceil(min_samples / CALLS)} --min_secs={min_s / CALLS:.4f}"
        )
        texts = [run(arguments) for _ in range(CALLS)]
        parsed = [self._parse(text) for text in texts]
        return SliceTimes(
            load_ms=median([p[0] for p in parsed]),
            first_run_ms=median([p[1] for p in parsed]),
            warmup_ms=[],
            samples_ms=[p[2] for p in parsed],
            runs_per_sample=int(median([float(p[3]) for p in parsed])),
            threads=_number(r"(?:Num threads|#threads used for CPU inference): \[(\d{1,6})\]", texts[0]),
            delegate=self._delegate(texts[0]),
        )

    def _parse(self, text: str) -> tuple[float, float, float, int]:
        """(load, first run, mean run in ms, runs)."""
        times = TIMINGS.match(text[max(0, text.rfind(TIMINGS_BEGIN)) :][:LONGEST_LINE])
        counts = re.findall(r"^(?:INFO: )?count=([1-9]\d{0,8}) ", text, re.MULTILINE | re.ASCII)
        if times is None or not counts:
            raise DeviceError(f"{self.config.kind} printed no 'Inference timings': {_last(text)}")
        load, first, mean = (time_ms(value, times[0], scale=1e-3) for value in times.groups())
        return load, first, mean, int(counts[-1])

    def _delegate(self, text: str) -> str:
        applied = re.search(r"Explicitly applied (\w+) delegate, and the model graph will be (\w+) executed", text)
        name = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}[self.config.delegate]
        if applied is not None and applied[1] == name:
            return f"{name} ({applied[2]})"
        if name == "XNNPACK" and "XNNPACK delegate for CPU" in text:
            return name
        raise DeviceError(f"{self.config.kind} was to use {name} and did not: {_delegate_line(text)}")


class PerfTest(Runner):
    """ONNX Runtime's tool. It does not report which nodes a provider took."""

    target = "onnx"
    runtime = "ONNX Runtime onnxruntime_perf_test"
    delegates = ("cpu", "nnapi", "qnn")

    def slice(
        self, run: Callable[[str], str], model: str, protocol: Protocol, min_samples: int, min_s: float
    ) -> SliceTimes:
        def call(runs: int) -> str:
            how = f"-e {self.config.delegate} -x {protocol.threads} -m times -r {runs} -I -v"
            return run(f"{how} {shlex.quote(model)}")

        def times(text: str) -> list[float]:
            lines = re.finditer(r"iteration:\d+,\s*time_cost:(\S+)", text)
            return [time_ms(found[1], found[0], scale=1e3) for found in lines]

        text, samples, warm = _timed(call, times, protocol, min_samples, min_s, self.config.kind)
        load = re.search(r"Session creation time cost: (\S+) s", text)
        first = re.search(r"First inference time cost: (\S+) ms", text)
        if load is None or first is None:
            raise DeviceError(f"{self.config.kind} printed no session or first inference time: {_last(text)}")
        threads = _number(r"Setting intra_op_num_threads to (\d{1,6})", text)
        load_ms, first_ms = time_ms(load[1], load[0], scale=1e3), time_ms(first[1], first[0], positive=False)
        return SliceTimes(load_ms, first_ms, samples[:warm], samples[warm:], threads=threads)


class ExecutorRunner(Runner):
    """ExecuTorch's tool; the delegate was chosen when the file was exported. It does not report its load time."""

    target = "executorch"
    runtime = "ExecuTorch executor_runner"
    delegates = ("cpu",)

    def slice(
        self, run: Callable[[str], str], model: str, protocol: Protocol, min_samples: int, min_s: float
    ) -> SliceTimes:
        def call(runs: int) -> str:
            return run(
                f"--model_path={shlex.quote(model)} --num_executions={runs} --cpu_threads={protocol.threads} "
                "--print_output=none"
            )

        def times(text: str) -> list[float]:
            return [time_ms(found[1], found[0]) for found in re.finditer(r"Iteration \d+ of \d+: (\S+) ms", text)]

        text, samples, warm = _timed(call, times, protocol, min_samples, min_s, self.config.kind)
        threads = _number(r"Resetting threadpool with num threads = (\d{1,6})", text)
        return SliceTimes(None, samples[0], samples[:warm], samples[warm:], threads=threads)


RUNNERS: dict[str, type[Runner]] = {
    "benchmark_model": BenchmarkModel,
    "onnxruntime_perf_test": PerfTest,
    "executor_runner": ExecutorRunner,
}


def _timed(
    call: Callable[[int], str],
    times: Callable[[str], list[float]],
    protocol: Protocol,
    min_samples: int,
    min_s: float,
    kind: str,
) -> tuple[str, list[float], int]:
    """Returns (output, every run in ms, number of warm-up runs among them) of a call sized by a short pilot."""
    pilot = times(call(PILOT_RUNS))
    if len(pilot) < PILOT_RUNS:
        raise DeviceError(f"{kind} does not print single runs: take a build of 2025 or later")
    run_s = max(median(pilot) / 1e3, 1e-6)
    warm = max(protocol.warmup_runs, math.ceil(protocol.warmup_s / run_s))
    text = call(warm + max(min_samples, math.ceil(1.1 * min_s / run_s)))
    samples = times(text)
    if len(samples) < warm + min_samples:
        raise DeviceError(f"{kind} printed {len(samples)} runs of {warm + min_samples}: {_last(text)}")
    return text, samples, warm


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.ASCII)
    return int(found[1]) if found else None


def _last(text: str) -> str:
    lines = [line.strip() for line in text[-LONGEST_LINE:].split("\n") if line.strip()]
    lines = [line for line in lines if not line.startswith("exit ")]
    return repr(printable(lines[-1][:200])) if lines else "no word"


def _delegate_line(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if "delegate" in line]
    return repr(printable(lines[-1][:200])) if lines else "its log names no delegate"
