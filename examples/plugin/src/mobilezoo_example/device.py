"""Times a file in this process: no fresh process, no sentinel, so good for trying things out only."""

import time
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_export.feeding import noise_for
from mobilezoo_export.registry import start_runner
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig, utc_now


class InProcessConfig(DeviceConfig):
    type: Literal["in_process"]
    runs: int = Field(default=30, gt=0, description="timed runs")


class InProcess(Device):
    Config: ClassVar[type[DeviceConfig]] = InProcessConfig
    config: InProcessConfig

    def check(self) -> None:
        """Always ready."""

    def describe(self) -> DeviceInfo:
        return DeviceInfo(name=self.config.name, kind="host", runtime="the artifact's own")

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        record = artifact.record
        runner = start_runner(artifact.path, record, protocol.threads)
        runner.feed(noise_for(runner.inputs))
        samples = [_timed_ms(runner.invoke) for _ in range(self.config.runs + 1)]
        return LatencyReport(
            artifact_sha256=record.sha256, artifact=artifact.path.name, target=record.target,
            precision=record.precision, model=record.model, device=self.describe(), protocol=protocol,
            samples_ms=tuple(samples[1:]), load_ms=None, first_run_ms=samples[0],
            sentinel_before_ms=None, sentinel_after_ms=None, measured_at=utc_now(),
        )  # fmt: skip


def _timed_ms(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3
