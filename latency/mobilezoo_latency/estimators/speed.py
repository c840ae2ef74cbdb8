"""Measurements taken at different moments, referred to one speed of the machine.

A machine's clock moves with heat, load and neighbors: on a virtual machine by tens of percent between minutes, far
more than a predictor's own error. The protocol detects that inside one measurement; between measurements each latency
is divided by the sentinel's time. The results are milliseconds at the median speed of the whole series.
"""

from collections.abc import Sequence
from statistics import median

from mobilezoo.latency_report import LatencyReport
from mobilezoo_latency.measuring import summarize


def sentinel_ms(report: LatencyReport) -> float | None:
    """Mean of the sentinel's times before and after, in ms; None if nothing was timed."""
    if not report.sentinel_before_ms or not report.sentinel_after_ms:
        return None
    return (report.sentinel_before_ms + report.sentinel_after_ms) / 2


def at_one_speed(reports: Sequence[LatencyReport]) -> list[float]:
    """Median latency of each report in ms, at the series' median speed; estimates stay as they are.

    Raises DeviceError for counts without calibration.
    """
    sentinels = [sentinel_ms(report) for report in reports]
    known = [sentinel for sentinel in sentinels if sentinel is not None]
    usual = median(known) if known else 1.0
    return [
        summarize(report)["median_ms"] * (usual / sentinel if sentinel is not None else 1.0)
        for report, sentinel in zip(reports, sentinels, strict=True)
    ]
