"""Records of a latency measurement: device, protocol, processes, raw samples."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mobilezoo.config import Record

Kind = Literal["host", "phone", "board", "browser", "emulated"]


class DeviceInfo(Record):
    """The device that a latency was measured on."""

    name: str
    kind: Kind
    runtime: str
    """Runtime and version, for example `LiteRT 2.3.0 (XNNPACK)`."""
    cpu: str = ""
    os: str = ""
    threads: int = 1
    details: dict[str, str] = {}


class Protocol(Record):
    """How samples are taken; part of a result's identity."""

    name: str = "screen"
    warmup_runs: int = 10
    warmup_s: float = 0.5
    warmup_max_s: float = 20.0
    """Upper limit of the warm-up; a result whose warm-up has not settled by then is marked as noisy."""
    stable_tolerance: float = 0.05
    """Warm-up has settled when the medians of its last two windows differ by less than this share."""
    min_runs: int = 64
    min_s: float = 1.0
    """Time spent in timed runs; `min_runs` and `min_s` are totals over all restarts."""
    restarts: int = 1
    """Fresh processes the samples are spread over."""
    slice_s: float = 0.0
    """The sentinel runs after every slice of this length; 0 runs it before and after all samples only."""
    threads: int = 1
    max_repeats: int = 3
    """How often a noisy measurement is repeated before it is reported as noisy."""
    sentinel_tolerance: float = 0.03
    drift_tolerance: float | None = 0.05
    """Largest accepted shift between the first and last quarter of the samples; None where drift is the subject."""
    max_other_load: float = 0.25
    """Share of all CPU cores that other processes may use meanwhile."""


class Slice(Record):
    """An unbroken stretch of timed runs inside a measurement, and the machine's state after it."""

    start_s: float
    """Seconds since the process began its first timed run."""
    samples: int
    sentinel_ms: NonNegativeFloat
    temperature_c: float | None = None
    frequency_mhz: float | None = None


class ProcessRun(Record):
    """One fresh process of a measurement: costs before the first timed run, and its slices in order."""

    load_ms: NonNegativeFloat | None
    """None where the runner does not report it."""
    first_run_ms: NonNegativeFloat
    warmup_runs: int
    warmup_settled: bool
    runs_per_sample: int
    """Runs timed together because the clock is coarse; each sample is their mean."""
    memory_bytes: int | None = None
    """Growth of the peak resident memory from before loading to the end."""
    cpu_share: float | None = None
    """CPU seconds per second of timed runs; below the thread count when the process had to wait for a core."""
    other_load: float | None = None
    """Share of all CPU cores that other processes kept busy meanwhile."""
    sentinel_before_ms: NonNegativeFloat
    slices: tuple[Slice, ...]


class Counts(Record):
    """What an emulated core executed in one warm run."""

    instructions: int
    cycles: float
    """Cycles from the static model of the core; not real time before calibration."""
    dram_lines: int | None = None
    macs: int | None = None
    """Multiply-adds found among the executed instructions."""


class HeldOut(Record):
    """Error of estimates on files of one precision, none of which the estimates were fitted to."""

    error_percent: NonNegativeFloat = Field(description="mean absolute percentage error")
    low_ratio: PositiveFloat = Field(description="10th percentile of real over estimated latency")
    high_ratio: PositiveFloat = Field(description="90th percentile of real over estimated latency")
    basis: str = Field(description="board, runtime, networks and source of the real latencies")


class Estimate(Record):
    """A predicted latency with its measured error."""

    latency_ms: NonNegativeFloat
    low_ms: NonNegativeFloat
    high_ms: NonNegativeFloat
    error_percent: NonNegativeFloat
    """Mean absolute percentage error on the networks named in `basis`."""
    measured_on: str = "fp32"
    """Precision of the files that the error was measured on."""
    basis: str

    def error_for(self, precision: str) -> str:
        """Describes the error of an estimate for a file of this precision, in words."""
        return error_in_words(self.error_percent, self.measured_on, precision)


def error_in_words(percent: float, measured_on: str, precision: str) -> str:
    """Describes the error of an estimate, which is known for files of one precision.

    Args:
        percent: mean absolute error on networks left out of the calibration.
        measured_on: precision of their files.
        precision: precision of the file at hand.
    """
    error = f"±{percent:.1f}%"
    return error if precision == measured_on else f"{error} on {measured_on} files, not known for {precision}"


class LatencyReport(Record):
    """Raw latency samples of one artifact on one device; summaries are computed from them."""

    schema_version: Literal[1] = 1
    artifact_sha256: str
    artifact: str
    target: str
    precision: str
    model: str
    device: DeviceInfo
    protocol: Protocol
    samples_ms: tuple[PositiveFloat, ...]
    """Finite and positive. Empty where the device counts instead of timing (`counts`, `estimate`)."""
    load_ms: NonNegativeFloat | None
    """Median over `processes`, like `first_run_ms`; None, like the sentinel, where nothing was timed."""
    first_run_ms: NonNegativeFloat | None
    sentinel_before_ms: NonNegativeFloat | None
    sentinel_after_ms: NonNegativeFloat | None
    noisy: tuple[str, ...] = ()
    """Reasons why the result is not to be trusted; empty if there are none."""
    repeats: int = 1
    measured_at: str
    """ISO 8601, UTC."""
    requested: dict[str, str] = {}
    """Threads, delegate and other settings as requested."""
    obtained: dict[str, str] = {}
    """The settings that the runtime used."""
    processes: tuple[ProcessRun, ...] = ()
    counts: Counts | None = None
    estimate: Estimate | None = None
    cached: bool = False
    """Read from the results store, not measured now."""
    unproven: str | None = None
    """Why the file was not compared with PyTorch, `not proven here` for files of others; None where it was."""
