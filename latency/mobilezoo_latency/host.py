"""This machine's processor, through the runtimes that phones use: ONNX Runtime, LiteRT/XNNPACK, ExecuTorch/XNNPACK.

Each measurement runs in fresh processes (`worker.py`), with one thread unless the protocol sets more.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from mobilezoo.errors import DeviceError, require
from mobilezoo.files import versions
from mobilezoo.latency_report import DeviceInfo, LatencyReport, ProcessRun, Protocol
from mobilezoo_export.records import Runtime
from mobilezoo_export.registry import TARGETS, load_exporter
from mobilezoo_latency import machine
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig
from mobilezoo_latency.protocol import slices_of
from mobilezoo_latency.reports import Measurement, build_report
from mobilezoo_latency.session import WorkerSession


def runtimes() -> dict[str, Runtime]:
    """Runtimes that time files on this machine, by export target."""
    return {name: cls.runtime for name, cls in TARGETS.load_all().items() if cls.runtime is not None}


def runtime_of(target: str) -> Runtime | None:
    """Runtime that times a target's files on this machine; None if there is none. Raises UnknownNameError."""
    return load_exporter(target).runtime


class HostConfig(DeviceConfig):
    """`auto` takes the runtime that the artifact is for."""

    type: Literal["host"] = "host"
    runtime: str = Field(description="an export target that this machine can time: onnx, litert, ...; or auto")

    @field_validator("runtime")
    @classmethod
    def _timed_here(cls, value: str) -> str:
        if value != "auto" and runtime_of(value) is None:
            raise ValueError(f"auto, {', '.join(runtimes())}")
        return value


class HostDevice(Device):
    """The machine this runs on."""

    Config: ClassVar[type[DeviceConfig]] = HostConfig
    config: HostConfig

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Returns this device with the artifact's runtime. Raises DeviceError if this machine has none for it."""
        target = artifact.record.target
        if runtime_of(target) is None:
            other = load_exporter(target).timed_by or f"use {', '.join(runtimes())}"
            raise DeviceError(f"{artifact.path.name}: no runtime for {target!r} on this machine: {other}")
        if self.config.runtime not in ("auto", target):
            raise DeviceError(
                f"{artifact.path.name} is for {target!r}, and device {self.config.name!r} runs "
                f"{self.config.runtime!r} only: use --device host"
            )
        return HostDevice(self.config.model_copy(update={"runtime": target}))

    def check(self) -> None:
        """Raise MissingToolError unless the runtime is installed; `auto` needs at least one of them."""
        if self.config.runtime != "auto":
            runtime = runtime_of(self.config.runtime)
            assert runtime is not None
            require(runtime.modules[0], runtime.extra)
        elif not versions([runtime.package for runtime in runtimes().values()]):
            require("onnxruntime", "onnx")

    def describe(self) -> DeviceInfo:
        """Identity by processor, system and runtime version."""
        timer = None if self.config.runtime == "auto" else runtime_of(self.config.runtime)
        if timer is None:
            title = "the artifact's own"
        else:
            version = versions([timer.package]).get(timer.package, "(not installed)")
            title = f"{timer.title} {version} ({timer.delegate})"
        return DeviceInfo(name="host", kind="host", runtime=title, cpu=machine.cpu_name(), os=machine.os_name())

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Takes samples in `protocol.restarts` fresh processes; noise is judged over all of them."""
        runs: list[ProcessRun] = []
        samples: list[float] = []
        runtime_info: dict[str, str] = {}
        for _ in range(protocol.restarts):
            with WorkerSession(artifact.path, protocol) as session:
                for min_samples, min_s in slices_of(protocol):
                    session.sample(min_samples, min_s)
                run, runtime_info = session.close()
                runs.append(run)
                samples += session.samples_ms
        return report_of(self, artifact, protocol, runs, samples, runtime_info)


def report_of(
    device: Device,
    artifact: ArtifactFile,
    protocol: Protocol,
    runs: list[ProcessRun],
    samples_ms: list[float],
    runtime_info: dict[str, str],
) -> LatencyReport:
    """Makes the record of one measurement on this machine.

    Args:
        device: gives the identity under which the result is stored.
        artifact: the measured file.
        protocol: the protocol that was followed.
        runs: one record per process.
        samples_ms: samples of all processes in ms, in the order they were taken.
        runtime_info: threads and delegate as the runtime reports them.

    Raises:
        DeviceError: the runtime used other threads or another delegate than requested.
    """
    runtime = runtime_of(artifact.record.target)
    assert runtime is not None
    requested = {"threads": str(protocol.threads), "delegate": runtime.delegate}
    for what, wanted in requested.items():
        if runtime_info.get(what, wanted) != wanted:
            raise DeviceError(f"{artifact.path.name}: requested {what} {wanted}, the runtime used {runtime_info[what]}")
    info = device.describe().model_copy(update={"threads": protocol.threads})
    return build_report(artifact, info, protocol, Measurement(requested, runtime_info, runs, samples_ms))
