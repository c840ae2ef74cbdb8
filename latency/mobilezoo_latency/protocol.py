"""Sampling protocol and noise detection: pure logic over a callable that times runs, and over a clock.

`time_runs(n)` performs `n` runs and returns the seconds they took together. Everything here is tested with fake clocks;
`docs/latency.md` explains the choices and names their sources.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilezoo.errors import UnknownNameError
from mobilezoo.latency_report import LatencyReport, ProcessRun, Protocol
from mobilezoo_latency.stats import median

TimeRuns = Callable[[int], float]
Now = Callable[[], float]

TIERS = {
    "screen": Protocol(name="screen"),
    "report": Protocol(name="report", warmup_s=1.0, min_runs=1024, min_s=60.0, restarts=4, slice_s=5.0, max_repeats=2),
    "sustained": Protocol(
        name="sustained",
        min_runs=1024,
        min_s=600.0,
        slice_s=10.0,
        max_repeats=1,
        sentinel_tolerance=1.0,  # heat slows the sentinel too: here that is the subject, not an error
        drift_tolerance=None,
    ),
}
TIMER_SHARE = 0.01
"""A sample spans at least 1 / TIMER_SHARE steps of the clock."""
MIN_SAMPLE_S = 50e-6
"""Shorter samples would measure the loop around the run."""
MIN_CPU_SHARE = 0.97


def load_protocol(protocol: str | Protocol, **changes: object) -> Protocol:
    """Returns a protocol, by tier or as it is, with fields replaced.

    Args:
        protocol: name of a tier (`screen`, `report`, `sustained`), or a protocol.
        **changes: fields of `Protocol` to replace; None keeps a field.

    Raises:
        UnknownNameError: no tier of this name.
        ConfigError: a field does not exist or its value is out of range.
    """
    if isinstance(protocol, str):
        if protocol not in TIERS:
            raise UnknownNameError("protocol", protocol, TIERS)
        protocol = TIERS[protocol]
    given = {key: value for key, value in changes.items() if value is not None}
    return Protocol.parse({**protocol.model_dump(), **given}, "protocol") if given else protocol


def timer_step_s(now: Now, tries: int = 50) -> float:
    """Measures the clock's step: the smallest difference between two readings that differ.

    Args:
        now: the clock, in seconds.
        tries: differences that are taken.

    Returns:
        Seconds; 1.0 for a clock that stands still.
    """
    steps = []
    for _ in range(tries):
        start = now()
        for _ in range(1_000_000):
            if (end := now()) > start:
                steps.append(end - start)
                break
    return min(steps, default=1.0)


def runs_per_sample(run_s: float, step_s: float) -> int:
    """Number of runs to time together so that the clock's step is at most TIMER_SHARE of a sample.

    Args:
        run_s: seconds of one run.
        step_s: step of the clock in seconds.
    """
    shortest = max(step_s / TIMER_SHARE, MIN_SAMPLE_S)
    return max(1, math.ceil(shortest / max(run_s, 1e-9)))


@dataclass(frozen=True)
class WarmUp:
    """Result of the warm-up; `run_s` is the median of its last window, in seconds."""

    runs: int
    settled: bool
    run_s: float


def warm_up(time_runs: TimeRuns, protocol: Protocol, now: Now) -> WarmUp:
    """Run until at least `warmup_runs` and `warmup_s` have passed and two successive windows agree.

    Ends unsettled at `warmup_max_s`. Windows hold half of `warmup_runs`, or a quarter of the runs so far if more.

    Args:
        time_runs: performs n runs and returns their seconds.
        protocol: gives `warmup_runs`, `warmup_s`, `warmup_max_s` and `stable_tolerance`.
        now: the clock, in seconds.
    """
    times: list[float] = []
    start = now()
    next_check = protocol.warmup_runs
    while True:
        # runs are timed one by one: the windows below need their order
        times.append(time_runs(1))
        elapsed = now() - start
        if len(times) < max(next_check, 2) or elapsed < protocol.warmup_s:
            continue
        # the window grows with the runs: a slow ramp (clock, heat) must not look flat through a short window
        window = max(1, min(max(protocol.warmup_runs // 2, len(times) // 4), len(times) // 2))
        last, previous = median(times[-window:]), median(times[-2 * window : -window])
        settled = abs(last - previous) <= protocol.stable_tolerance * max(previous, 1e-12)
        if settled or elapsed >= protocol.warmup_max_s:
            return WarmUp(len(times), settled, last)
        # checks at growing distances: their own cost stays a fixed share, and chance gets few tries
        next_check = len(times) + max(1, len(times) // 4)


def sample(time_runs: TimeRuns, runs: int, min_samples: int, min_s: float) -> list[float]:
    """Takes samples until both minimums are reached; none is dropped.

    Args:
        time_runs: performs n runs and returns their seconds.
        runs: runs per sample.
        min_samples: fewest samples.
        min_s: fewest seconds of timed runs, together.

    Returns:
        Samples in ms per run, in the order they were taken.
    """
    samples: list[float] = []
    total_s = 0.0
    while len(samples) < min_samples or total_s < min_s:
        seconds = time_runs(runs)
        total_s += max(seconds, 1e-9)
        samples.append(seconds / runs * 1e3)
    return samples


def slices_of(protocol: Protocol) -> list[tuple[int, float]]:
    """Returns (samples, seconds) of each slice of one process; all restarts together reach the protocol's totals."""
    seconds = protocol.min_s / protocol.restarts
    count = max(1, math.ceil(seconds / protocol.slice_s)) if protocol.slice_s > 0 else 1
    samples = math.ceil(protocol.min_runs / protocol.restarts / count)
    return [(samples, seconds / count)] * count


def noise_reasons(protocol: Protocol, processes: Sequence[ProcessRun], samples_ms: Sequence[float]) -> tuple[str, ...]:
    """Reasons why a measurement is noisy.

    Args:
        protocol: gives the tolerances.
        processes: one record per restart.
        samples_ms: samples of all restarts in ms, in the order they were taken.

    Returns:
        Short sentences with the figures; empty for a quiet measurement.
    """
    reasons = []
    for name, run in _named(processes):
        if not run.warmup_settled:
            reasons.append(f"{name}warm-up did not settle in {run.warmup_runs} runs")
        if run.cpu_share is not None and run.cpu_share < MIN_CPU_SHARE:
            reasons.append(f"{name}waited for a core {1 - run.cpu_share:.0%} of the time")
        if run.other_load is not None and run.other_load > protocol.max_other_load:
            reasons.append(f"{name}other processes used {run.other_load:.0%} of all cores")
    shift = sentinel_shift(processes)
    if shift > protocol.sentinel_tolerance:
        reasons.append(f"sentinel shifted by {shift:.1%} (limit {protocol.sentinel_tolerance:.0%})")
    moved = drift(samples_ms)
    if protocol.drift_tolerance is not None and moved > protocol.drift_tolerance:
        reasons.append(f"drift of {moved:.1%} between first and last quarter (limit {protocol.drift_tolerance:.0%})")
    return tuple(reasons)


def sentinel_shift(processes: Sequence[ProcessRun]) -> float:
    """Slowest over fastest sentinel time of a measurement, minus one."""
    times = [t for run in processes for t in (run.sentinel_before_ms, *(s.sentinel_ms for s in run.slices))]
    return max(times) / min(times) - 1 if times and min(times) > 0 else 0.0


def drift(samples_ms: Sequence[float]) -> float:
    """Relative shift between the medians of the first and last quarter."""
    quarter = len(samples_ms) // 4
    if quarter < 4:
        return 0.0
    first, last = median(samples_ms[:quarter]), median(samples_ms[-quarter:])
    return abs(last / first - 1) if first > 0 else 0.0


def until_quiet(measure: Callable[[], LatencyReport], max_repeats: int) -> LatencyReport:
    """Measures again while the result is noisy.

    Args:
        measure: takes one measurement.
        max_repeats: most measurements in all.

    Returns:
        The measurement with the fewest reasons in `noisy`; `repeats` counts the measurements taken.
    """
    attempts = [measure()]
    while attempts[-1].noisy and len(attempts) < max_repeats:
        attempts.append(measure())
    best = min(reversed(attempts), key=lambda report: len(report.noisy))
    return best.model_copy(update={"repeats": len(attempts)})


def _named(processes: Sequence[ProcessRun]) -> list[tuple[str, ProcessRun]]:
    if len(processes) == 1:
        return [("", processes[0])]
    return [(f"process {i}: ", run) for i, run in enumerate(processes, 1)]
