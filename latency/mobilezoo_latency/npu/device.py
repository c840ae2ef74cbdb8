"""The device that checks files on an emulated Hexagon NPU and measures nothing."""

from typing import ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_export.htp.layout import (
    ENVIRONMENT_OF_WORKER,
    Emulation,
    command_of,
    find_emulation,
    provider_options,
    python_of,
)
from mobilezoo_export.unit_runner import UnitRunner
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig


class NpuCheckConfig(DeviceConfig):
    """Which NPU is emulated."""

    type: Literal["npu_check"] = "npu_check"
    htp_arch: Literal["73", "75", "79", "81"] = Field(
        default="75",
        description="version of the Hexagon HTP: 73 Snapdragon 8 Gen 2, 75 Gen 3, 79 Elite, 81 Elite Gen 5",
    )
    soc_model: int = Field(
        default=57, ge=0, le=100_000, description="Qualcomm's number of the chip: 57 is SM8650; 0: none in particular"
    )
    half: bool = Field(default=True, description="floats in half precision, as the HTP computes; false: in float32")

    def provider(self) -> dict[str, str]:
        """Options of ONNX Runtime's QNN provider."""
        return provider_options(self.htp_arch, self.soc_model, self.half)


class NpuCheckDevice(Device):
    """Qualcomm's emulation of the HTP through ONNX Runtime."""

    Config: ClassVar[type[DeviceConfig]] = NpuCheckConfig
    config: NpuCheckConfig

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self._open: list[UnitRunner] = []

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Itself, for ONNX files. Raises DeviceError for others."""
        if artifact.record.target != "onnx":
            raise DeviceError(
                f"{artifact.path.name}: the NPU check runs ONNX files, and this is {artifact.record.target!r}: "
                "export with --to onnx"
            )
        return self

    def check(self) -> None:
        """Raise DeviceError, with the remedy, unless files can be checked now."""
        python_of(find_emulation())

    def describe(self) -> DeviceInfo:
        """Identity by runtime and emulated NPU; needs the set-up."""
        versions = find_emulation().versions
        return DeviceInfo(
            name=self.config.name,
            kind="emulated",
            runtime=f"ONNX Runtime {versions.onnxruntime} (QNN {versions.qnn})",
            cpu=f"Hexagon HTP v{self.config.htp_arch}, soc_model {self.config.soc_model}, emulated",
        )

    def hint(self) -> str:
        """Runtime, NPU, and that only answers are checked."""
        return f"{super().hint()}; checks answers, measures no time"

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Raises DeviceError: an emulation of numbers has no times."""
        raise DeviceError(
            f"{self.config.name} checks what an NPU computes and measures nothing: times of an emulation mean nothing; "
            "use --device android with onnxruntime_perf_test, or --check npu of `mobilezoo export`"
        )

    def open_runner(self, artifact: ArtifactFile) -> UnitRunner:
        """The file on the emulated NPU, in a process of its own. Raises DeviceError."""
        self.for_artifact(artifact)
        runner = open_on(find_emulation(), self.config, artifact)
        self._open.append(runner)
        return runner

    def close(self) -> None:
        """End the processes of all open files."""
        while self._open:
            self._open.pop().close()


def open_on(emulation: Emulation, config: NpuCheckConfig, artifact: ArtifactFile) -> UnitRunner:
    """Loads a file on an emulated NPU.

    Args:
        emulation: the installed emulation.
        config: which NPU.
        artifact: an ONNX file and its record.

    Raises:
        DeviceError: the NPU does not take it.
    """
    where = f"the emulated NPU (v{config.htp_arch}, soc_model {config.soc_model})"
    options = {"provider": config.provider()}
    return UnitRunner(where, command_of(emulation), ENVIRONMENT_OF_WORKER, artifact.path, artifact.record, options)
