"""Every device's record of a measurement is made in one place."""

from pathlib import Path

from mobilezoo.latency_report import Counts, DeviceInfo, ProcessRun, Protocol, Slice
from mobilezoo_latency.contract import load_artifact
from mobilezoo_latency.reports import Measurement, build_report

DEVICE = DeviceInfo(name="toy", kind="host", runtime="toy 1")


def process(load_ms: float, first_run_ms: float, sentinel_ms: float) -> ProcessRun:
    return ProcessRun(
        load_ms=load_ms,
        first_run_ms=first_run_ms,
        warmup_runs=10,
        warmup_settled=True,
        runs_per_sample=1,
        sentinel_before_ms=sentinel_ms,
        slices=(Slice(start_s=0.0, samples=50, sentinel_ms=sentinel_ms),),
    )


def test_a_timed_file_gets_the_medians_of_its_processes_and_all_doubts(tiny_onnx: Path) -> None:
    runs = [process(4.0, 2.0, 1.0), process(6.0, 3.0, 1.0), process(20.0, 7.0, 1.5)]
    measured = Measurement({"threads": "1"}, {"threads": "1"}, runs, [1.0] * 150, ("the page was hidden",))
    report = build_report(load_artifact(tiny_onnx), DEVICE, Protocol(), measured)
    assert (report.load_ms, report.first_run_ms) == (6.0, 3.0)
    assert (report.sentinel_before_ms, report.sentinel_after_ms) == (1.0, 1.5)
    shifted, hidden = report.noisy
    assert "sentinel shifted" in shifted
    assert hidden == "the page was hidden"
    assert (report.artifact, report.target, len(report.samples_ms)) == (tiny_onnx.name, "onnx", 150)


def test_a_counted_file_has_no_times_and_nothing_to_doubt(tiny_onnx: Path) -> None:
    counts = Counts(instructions=10, cycles=5, dram_lines=None, macs=3)
    report = build_report(load_artifact(tiny_onnx), DEVICE, Protocol(), Measurement({}, {}, counts=counts))
    assert report.counts == counts
    assert (report.samples_ms, report.noisy, report.processes) == ((), (), ())
    assert report.load_ms is report.first_run_ms is report.sentinel_before_ms is report.sentinel_after_ms is None
