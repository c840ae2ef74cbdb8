"""One way to make the record of a measurement, for every device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mobilezoo.latency_report import Counts, DeviceInfo, Estimate, LatencyReport, ProcessRun, Protocol
from mobilezoo_latency.contract import ArtifactFile, utc_now
from mobilezoo_latency.protocol import noise_reasons
from mobilezoo_latency.stats import median, median_known


class Measurement(NamedTuple):
    """Result of one measurement: times, or counts, of one artifact."""

    requested: Mapping[str, str]
    """Threads, delegate and so on, as requested."""
    runtime_info: Mapping[str, str]
    """The same keys as the runtime reports them, and what else it reports."""
    runs: Sequence[ProcessRun] = ()
    """One per process or loaded model; empty for a device that does not time."""
    samples_ms: Sequence[float] = ()
    """Of all runs, in the order they were taken."""
    doubts: tuple[str, ...] = ()
    """Reasons for noise found by the device itself, besides those of `noise_reasons`."""
    counts: Counts | None = None
    estimate: Estimate | None = None


def build_report(
    artifact: ArtifactFile, device: DeviceInfo, protocol: Protocol, measured: Measurement
) -> LatencyReport:
    """Make the record of one measurement.

    Args:
        artifact: the file that was measured, with its record.
        device: identity under which the result is stored.
        protocol: the protocol that was followed.
        measured: samples, runs and counts.

    Returns:
        A report with the current time, whose `noisy` holds the reasons found by `noise_reasons`, then the device's own.
    """
    record, runs = artifact.record, measured.runs
    return LatencyReport(
        artifact_sha256=record.sha256,
        artifact=artifact.path.name,
        target=record.target,
        precision=record.precision,
        model=record.model,
        device=device,
        protocol=protocol,
        samples_ms=tuple(measured.samples_ms),
        load_ms=median_known(run.load_ms for run in runs),
        first_run_ms=median([run.first_run_ms for run in runs]) if runs else None,
        sentinel_before_ms=runs[0].sentinel_before_ms if runs else None,
        sentinel_after_ms=runs[-1].slices[-1].sentinel_ms if runs else None,
        noisy=(noise_reasons(protocol, runs, measured.samples_ms) if runs else ()) + measured.doubts,
        measured_at=utc_now(),
        requested=dict(measured.requested),
        obtained=dict(measured.runtime_info),
        processes=tuple(runs),
        counts=measured.counts,
        estimate=measured.estimate,
    )
