"""The device that checks files on LiteRT's GPU accelerator and measures nothing."""

import sys
from typing import ClassVar, Literal

from mobilezoo.errors import DeviceError, require
from mobilezoo.files import versions
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_export.unit_runner import UnitRunner
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig
from mobilezoo_latency.gpu.layout import SoftwareGpu, find_gpu

WORKER = [sys.executable, "-m", "mobilezoo_latency.gpu.worker"]


class GpuCheckConfig(DeviceConfig):
    """Nothing to choose: the driver is the one that the set-up verified."""

    type: Literal["gpu_check"] = "gpu_check"


class GpuCheckDevice(Device):
    """LiteRT's GPU accelerator on a Vulkan driver in software."""

    Config: ClassVar[type[DeviceConfig]] = GpuCheckConfig
    config: GpuCheckConfig

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self._open: list[UnitRunner] = []

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Itself, for LiteRT files. Raises DeviceError for others."""
        if artifact.record.target != "litert":
            raise DeviceError(
                f"{artifact.path.name}: the GPU check runs LiteRT files, and this is {artifact.record.target!r}: "
                "export with --to litert"
            )
        return self

    def check(self) -> None:
        """Raise DeviceError or MissingToolError, with the remedy, unless files can be checked now."""
        require("ai_edge_litert", "litert")
        find_gpu()

    def describe(self) -> DeviceInfo:
        """Identity by runtime and driver; needs the set-up."""
        driver = find_gpu().driver
        litert = versions(["ai-edge-litert"]).get("ai-edge-litert", "(not installed)")
        arithmetic = "half precision" if driver.half else "float32 only"
        return DeviceInfo(
            name=self.config.name,
            kind="emulated",
            runtime=f"LiteRT {litert} (ML Drift on WebGPU)",
            cpu=f"software Vulkan {driver.icd}, {arithmetic}",
        )

    def hint(self) -> str:
        """Runtime, driver, and that only answers are checked."""
        return f"{super().hint()}; checks answers, measures no time"

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Raises DeviceError: a driver in software has no times of a GPU."""
        raise DeviceError(
            f"{self.config.name} checks what a GPU computes and measures nothing: times of a driver in software mean "
            "nothing; use --device android with a delegate, or --check gpu of `mobilezoo export`"
        )

    def open_runner(self, artifact: ArtifactFile) -> UnitRunner:
        """The file on the GPU, in a process of its own. Raises DeviceError."""
        self.for_artifact(artifact)
        runner = open_on(find_gpu(), artifact)
        self._open.append(runner)
        return runner

    def close(self) -> None:
        """End the processes of all open files."""
        while self._open:
            self._open.pop().close()


def open_on(gpu: SoftwareGpu, artifact: ArtifactFile) -> UnitRunner:
    """Loads a file on a driver.

    Args:
        gpu: the driver.
        artifact: a LiteRT file and its record.

    Raises:
        DeviceError: LiteRT or the driver does not take it.
    """
    return UnitRunner("the GPU", WORKER, gpu.environment(), artifact.path, artifact.record, {"half": gpu.driver.half})
