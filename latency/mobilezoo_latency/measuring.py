"""The main functions: `profile` measures one artifact, `compare` times two in turns, `summarize` gives statistics."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_latency import stats
from mobilezoo_latency.contract import ArtifactFile, Device, load_artifact, refuse_folded, unproven
from mobilezoo_latency.protocol import load_protocol, until_quiet
from mobilezoo_latency.registry import load_device
from mobilezoo_latency.store import Store

if TYPE_CHECKING:
    from mobilezoo_latency.session import Clock, WorkerSession

STARVED = 0.8
"""Share of a core below which a process waited so often that its times say nothing of its file."""
Reuse = Literal["quiet", "any", "none"]
"""Stored results that `profile` returns instead of measuring."""


def profile(
    artifact: str | Path,
    device: str | Path | Device = "host",
    protocol: str | Protocol = "screen",
    reuse: Reuse = "quiet",
    store: Store | None = None,
    allow_folded: bool = False,
    threads: int | None = None,
) -> LatencyReport:
    """Measures the latency of one exported file on one device, or returns the stored result of equal keys.

    A noisy measurement is repeated up to `protocol.max_repeats` times and then marked.

    Args:
        artifact: the exported file.
        device: a device, its name, or its YAML.
        protocol: a protocol or its name.
        reuse: stored results of this file, device and protocol that are returned instead, marked `cached`: `quiet`
            ones, `any` (noisy ones too, so that a long series ends on a busy machine), or `none`.
        store: database of results; by default the user's.
        allow_folded: also measure files whose zero norms let converters drop branches.
        threads: replaces the protocol's threads.

    Raises:
        MobilezooError: the file, device or protocol cannot be used, or the measurement failed.
    """
    if reuse not in get_args(Reuse):
        raise UnknownNameError("choice of results to reuse", reuse, get_args(Reuse))
    file = load_artifact(artifact)
    if not allow_folded:
        refuse_folded(file)
    opened = load_device(device)
    try:
        chosen = opened.for_artifact(file)
        return _profile(file, chosen, load_protocol(protocol, threads=threads), reuse, store)
    finally:
        if opened is not device:
            opened.close()


def _profile(
    file: ArtifactFile, chosen: Device, protocol: Protocol, reuse: Reuse, store: Store | None
) -> LatencyReport:
    protocol = chosen.protocol_for(protocol)
    chosen.check()
    store = store or Store()  # not before: a device that cannot measure leaves no new database behind
    info = chosen.describe().model_copy(update={"threads": protocol.threads})
    doubt = {"unproven": unproven(file.record)}
    known = None if reuse == "none" else store.find(file.record.sha256, info, protocol, noisy=reuse == "any")
    if known is not None:
        return chosen.refresh(known).model_copy(update=doubt)
    report = until_quiet(lambda: chosen.measure(file, protocol), protocol.max_repeats).model_copy(update=doubt)
    store.add(report)
    return report


class Comparison(Record):
    """Two artifacts timed in turns on one device: how many times as long B takes as A."""

    a: str
    b: str
    device_a: DeviceInfo
    device_b: DeviceInfo
    a_median_ms: float
    b_median_ms: float
    ratio: float
    """Median over turns of B's median over A's."""
    ratio_low: float
    ratio_high: float
    """95% interval of `ratio`."""
    ratios: tuple[float, ...]
    """One per turn (A B B A)."""
    unproven_a: str | None = None
    """Reason why A was not compared with PyTorch; None if it was."""
    noisy: tuple[str, ...] = ()
    """Reasons why the ratio is not to be trusted; empty if there are none."""
    unproven_b: str | None = None


def compare(
    a: str | Path,
    b: str | Path,
    device: str | Path | Device = "host",
    protocol: str | Protocol = "screen",
    turns: int = 15,
    allow_folded: bool = False,
    clock: "Clock" = "wall",
) -> Comparison:
    """Times two artifacts in turns (A B B A, so that a steady drift cancels), each in a process of its own.

    Args:
        a: an exported file.
        b: the file that is compared with it.
        device: a device, its name, or its YAML.
        protocol: a protocol or its name; each turn takes its samples divided by `turns`.
        turns: pairs of measurements.
        allow_folded: also measure files whose zero norms let converters drop branches.
        clock: `cpu` compares the seconds that each process has a core for, a slice by its fastest run, so that ratios
            hold on a busy machine; the medians are of those seconds too. With several threads all of them are counted.

    Raises:
        DeviceError: the device cannot interleave two files.
    """
    files = [load_artifact(path) for path in (a, b)]
    if not allow_folded:
        for file in files:
            refuse_folded(file)
    protocol = load_protocol(protocol)
    devices = [_interleaving(load_device(device).for_artifact(file)) for file in files]
    ratios, medians, noisy = _in_turns(files, protocol, turns, clock)
    ratio, low, high = stats.ratio_interval(ratios)
    infos = [chosen.describe().model_copy(update={"threads": protocol.threads}) for chosen in devices]
    return Comparison(
        a=files[0].path.name,
        b=files[1].path.name,
        device_a=infos[0],
        device_b=infos[1],
        a_median_ms=medians[0],
        b_median_ms=medians[1],
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        ratios=tuple(ratios),
        noisy=tuple(noisy),
        unproven_a=unproven(files[0].record),
        unproven_b=unproven(files[1].record),
    )


def _interleaving(chosen: Device) -> Device:
    """The device, checked. Raises DeviceError unless it can hold two files at once."""
    from mobilezoo_latency.host import HostDevice

    if not isinstance(chosen, HostDevice):
        raise DeviceError(f"device {chosen.config.name!r} cannot interleave two artifacts: profile each by itself")
    chosen.check()
    return chosen


def _of_medians(first: list[float], second: list[float]) -> float:
    return stats.median(first + second)


def _of_fastest(first: list[float], second: list[float]) -> float:
    return min(first) + min(second)


def _in_turns(
    files: Sequence[ArtifactFile], protocol: Protocol, turns: int, clock: "Clock"
) -> tuple[list[float], list[float], list[str]]:
    """Returns (ratio B over A of each turn, medians of A and of B in ms over all turns, reasons for doubt)."""
    from mobilezoo_latency.session import WorkerSession

    per_slice = max(4, -(-protocol.min_runs // (2 * turns))), protocol.min_s / (2 * turns)
    time_of = _of_fastest if clock == "cpu" else _of_medians
    ratios = []
    opened = [WorkerSession(file.path, protocol, clock=clock) for file in files]
    with opened[0] as first, opened[1] as second:
        for _ in range(turns):
            # A B B A: a steady drift slows both sides of the ratio alike
            times = [session.sample(*per_slice) for session in (first, second, second, first)]
            ratios.append(time_of(times[1], times[2]) / time_of(times[0], times[3]))
        both = (first, second)
        noisy = [line for one in both for line in _waited(one)] if clock == "wall" else []
        return ratios, [stats.median(one.samples_ms) for one in both], noisy


def _waited(session: "WorkerSession") -> list[str]:
    """Whether a process had to wait for a core, as a line."""
    share = session.cpu_share
    if share is None or share >= STARVED:
        return []
    return [f"{session.artifact.name} waited for a core {1 - share:.0%} of the time"]


def summarize(report: LatencyReport) -> dict[str, float]:
    """Returns median_ms, p90_ms, p99_ms, mad_ms, ci_low_ms and ci_high_ms of the raw samples.

    A device that counts instead of timing has no samples and so no spread: median_ms, ci_low_ms and ci_high_ms are the
    estimate's value and interval, and the other keys are absent. Raises DeviceError for counts without calibration.
    """
    if report.samples_ms:
        return stats.summary(report.samples_ms)
    if report.estimate is None:
        raise DeviceError(f"{report.artifact}: counted on {report.device.name}, which has no calibration to ms yet")
    known = report.estimate
    return {"median_ms": known.latency_ms, "ci_low_ms": known.low_ms, "ci_high_ms": known.high_ms}
