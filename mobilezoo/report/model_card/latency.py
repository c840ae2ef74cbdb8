"""Latency by kind of device; what was not timed is named so."""

from collections.abc import Sequence

from mobilezoo.latency_report import LatencyReport
from mobilezoo.models.latency_table import LatencyRow as CountedRow
from mobilezoo.models.latency_table import read_latencies
from mobilezoo.report.model_card.markdown import table
from mobilezoo.report.tables import LatencyRow, latency_groups

HEAD = ("file", "device", "runtime", "threads", "median (ms)", "95% interval (ms)", "p90 (ms)", "samples", "remarks")
ESTIMATED = (
    "Nothing was timed here: a latency is predicted, for an emulated core from the instructions and memory traffic of "
    "one run. The error is the mean one on the networks of the basis."
)


def latency_section(reports: Sequence[LatencyReport], counted: Sequence[CountedRow] = ()) -> str:
    """Writes one table per kind of device; empty without any.

    Args:
        reports: measurements and estimates of single files.
        counted: rows of the zoo's latency table, which was counted with random weights.
    """
    parts = []
    for heading, rows in latency_groups(reports):
        parts += [f"### {heading} (measured)", table(HEAD, [_measured(row) for row in rows])]
    untimed = [one for one in reports if not one.samples_ms]
    untimed.sort(key=lambda one: (one.device.name, one.estimate.latency_ms if one.estimate else 0))
    estimates = [*map(_estimated, untimed), *map(_of_table, counted)]
    if estimates:
        head = ("file", "device", "runtime", "latency (ms)", "range (ms)", "error", "basis")
        parts += ["### Emulated or estimated (not measured)", ESTIMATED, table(head, estimates)]
    return "\n\n".join(("## Latency", *parts)) if parts else ""


def _measured(row: LatencyRow) -> tuple[object, ...]:
    device, s = row.device, row.summary
    name = f"{device.name}, {device.cpu}" if device.cpu else device.name
    return (
        f"{row.target} {row.precision}",
        f"{name}, {device.os}" if device.os else name,
        device.runtime,
        device.threads,
        f"{s.median_ms:.3g}",
        f"{s.ci_low_ms:.3g}..{s.ci_high_ms:.3g}",
        f"{s.p90_ms:.3g}",
        len(row.samples_ms),
        f"noisy: {'; '.join(row.noisy)}" if row.noisy else "",
    )


def _estimated(report: LatencyReport) -> tuple[object, ...]:
    name = f"{report.device.name} (emulated)" if report.device.kind == "emulated" else report.device.name
    head = (f"{report.target} {report.precision}", name, report.device.runtime)
    found = report.estimate
    if found is None:
        return (*head, None, None, None, "counted only: not calibrated, no latency is known")
    span = f"{found.low_ms:.3g}..{found.high_ms:.3g}"
    return (*head, f"≈ {found.latency_ms:.3g}", span, found.error_for(report.precision), found.basis)


def _of_table(row: CountedRow) -> tuple[object, ...]:
    """A row of the zoo's table; its range is known where its precision's error is."""
    latencies = read_latencies()
    core, ms = latencies.cores[row.device], row.latency_ms or 0.0
    known = core.error_on(row.precision)
    span = f"{ms * known.low_ratio:.3g}..{ms * known.high_ratio:.3g}" if known else None
    error = latencies.error_of(row.device, row.precision)
    return (f"litert {row.precision}", f"{row.device} (emulated)", core.runtime, f"≈ {ms:.3g}", span, error, core.basis)
