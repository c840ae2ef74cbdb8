"""One restart on a remote device: slices in processes of their own, with the sentinel and the device's state around."""

import time
from collections.abc import Callable

from mobilezoo.latency_report import ProcessRun, Protocol, Slice
from mobilezoo_latency.protocol import slices_of
from mobilezoo_latency.remote.link import Link
from mobilezoo_latency.remote.parsing import SliceTimes
from mobilezoo_latency.remote.state import read_state
from mobilezoo_latency.stats import median

TimeSlice = Callable[[int, float], SliceTimes]
"""(fewest samples, fewest seconds) → times of one slice."""


def time_restart(
    link: Link, protocol: Protocol, time_slice: TimeSlice, time_sentinel: Callable[[], float]
) -> tuple[ProcessRun, list[SliceTimes]]:
    """Times the slices of one restart, each in a process on the device.

    Args:
        link: the connection.
        protocol: gives the slices and the number of threads.
        time_slice: times one slice of the network.
        time_sentinel: times the sentinel network; milliseconds.

    Returns:
        The record of the restart, and the times of its slices.

    Raises:
        DeviceError: a run failed, or the connection is lost for good.
    """
    sentinel_before_ms = time_sentinel()
    timed: list[SliceTimes] = []
    slices: list[Slice] = []
    loads: list[float] = []
    began = time.monotonic()
    for min_samples, min_s in slices_of(protocol):
        start_s = time.monotonic() - began
        before = read_state(link)
        timed.append(time_slice(min_samples, min_s))
        after = read_state(link)  # before the sentinel runs: its own work is no load of others
        loads += [load for load in [after.other_load(before, protocol.threads)] if load is not None]
        slices.append(
            Slice(
                start_s=start_s,
                samples=len(timed[-1].samples_ms),
                sentinel_ms=time_sentinel(),
                temperature_c=after.temperature_c,
                frequency_mhz=after.frequency_mhz,
            )
        )
    first = timed[0]
    record = ProcessRun(
        load_ms=first.load_ms,
        first_run_ms=first.first_run_ms,
        warmup_runs=len(first.warmup_ms),
        warmup_settled=_settled(first, protocol),
        runs_per_sample=first.runs_per_sample,
        other_load=max(loads, default=None),
        sentinel_before_ms=sentinel_before_ms,
        slices=tuple(slices),
    )
    return record, timed


def _settled(times: SliceTimes, protocol: Protocol) -> bool:
    """True if the last two windows of the warm-up agree."""
    window = min(max(protocol.warmup_runs // 2, 1), len(times.warmup_ms) // 2)
    if window == 0:
        return True
    last, previous = median(times.warmup_ms[-window:]), median(times.warmup_ms[-2 * window : -window])
    return abs(last - previous) <= protocol.stable_tolerance * previous
