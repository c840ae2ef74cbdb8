"""Core ML files on a Mac or a connected iPhone or iPad, timed by coremltools' MLModelBenchmarker.

The benchmarker takes each duration inside the process that predicts, so the cable to a phone is not in it. The planned
processor of every operation (CPU, GPU, Neural Engine) comes from MLComputePlan and is stored in the record.
"""

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError, first_line, require
from mobilezoo.files import versions
from mobilezoo.latency_report import DeviceInfo, LatencyReport, ProcessRun, Protocol, Slice
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency import machine
from mobilezoo_latency.apple.sentinel import SENTINEL_SHAPE, write_sentinel
from mobilezoo_latency.apple.toolkit import Toolkit, load_toolkit, plan_text, processor_name, seeded_noise
from mobilezoo_latency.contract import NAME, ArtifactFile, Device, DeviceConfig, name_of
from mobilezoo_latency.protocol import sample, slices_of, warm_up
from mobilezoo_latency.reports import Measurement, build_report
from mobilezoo_latency.stats import median

UNITS = {"all": "ALL", "cpu_only": "CPU_ONLY", "cpu_and_gpu": "CPU_AND_GPU", "cpu_and_ne": "CPU_AND_NE"}
ALLOWED = {
    "all": {"CPU", "GPU", "Neural Engine"},
    "cpu_only": {"CPU"},
    "cpu_and_gpu": {"CPU", "GPU"},
    "cpu_and_ne": {"CPU", "Neural Engine"},
}
SENTINEL_RUNS = 31
OLDEST_MACOS = (14, 4)
"""First version with MLComputePlan."""


class AppleConfig(DeviceConfig):
    """Selects the device, and the processors that Core ML may use."""

    type: Literal["apple"] = "apple"
    where: Literal["mac", "iphone", "ipad"] = Field(default="mac", description="this Mac, or what is connected to it")
    compute_units: Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"] = Field(
        default="all", description="processors that Core ML may use"
    )
    device_name: str = Field(default="", pattern=NAME, description="needed when several are connected")
    team: str = Field(
        default="",
        pattern=r"^[A-Z0-9]{0,20}$",
        description="Apple development team that signs the runner app; phones only",
    )


class AppleDevice(Device):
    """Core ML on Apple hardware."""

    Config: ClassVar[type[DeviceConfig]] = AppleConfig
    config: AppleConfig

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self._phone: Any = None
        self._runner: asyncio.Runner | None = None

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Itself, for Core ML files. Raises DeviceError for others."""
        if artifact.record.target != "coreml":
            raise DeviceError(
                f"{artifact.path.name}: {self.config.name} runs Core ML files, and this is "
                f"{artifact.record.target!r}: export with --to coreml"
            )
        return self

    def check(self) -> None:
        """Raise DeviceError or MissingToolError unless Core ML can measure here."""
        system, release = platform.system(), platform.mac_ver()[0]
        if system != "Darwin":
            raise DeviceError(
                f"device {self.config.name!r} needs macOS, and this is {system}: Core ML runs on Apple systems only; "
                "here a Core ML file can be checked (mobilezoo eval) but not timed"
            )
        if tuple(int(part) for part in release.split(".")[:2]) < OLDEST_MACOS:
            raise DeviceError(f"device {self.config.name!r} needs macOS 14.4 or newer, and this is {release}")
        require("coremltools", "coreml")

    def protocol_for(self, protocol: Protocol) -> Protocol:
        """Returns the protocol as it is. Raises DeviceError for several threads: Core ML chooses its own."""
        if protocol.threads != 1:
            raise DeviceError(f"{self.config.name}: Core ML chooses its own threads; leave --threads out")
        return protocol

    def describe(self) -> DeviceInfo:
        """Identity by product and system; a phone must be connected."""
        runtime = f"Core ML ({self.config.compute_units}, coremltools {versions(['coremltools']).get('coremltools')})"
        if self.config.where == "mac":
            system = f"macOS {platform.mac_ver()[0]}"
            return DeviceInfo(name="this Mac", kind="host", runtime=runtime, cpu=machine.cpu_name(), os=system)
        phone = self.connected()
        system = f"{'iOS' if self.config.where == 'iphone' else 'iPadOS'} {name_of(str(phone.os_version))}"
        name, cpu = name_of(phone.name), name_of(phone.type.value)
        return DeviceInfo(name=name, kind="phone", runtime=runtime, cpu=cpu, os=system)

    def connected(self) -> Any:
        """Returns the one connected device of the configured type. Raises DeviceError for none or several."""
        kit = load_toolkit()
        wanted = self.config.where
        try:
            found = kit.devices.Device.get_connected_devices(kit.devices.DeviceType(wanted))
        except Exception as error:  # Xcode's tools may be missing or refuse in many ways
            raise DeviceError(
                f"cannot ask Xcode for connected devices: {first_line(error)}: is Xcode installed?"
            ) from None
        names = ", ".join(device.name for device in found)
        if self.config.device_name:
            found = [device for device in found if device.name == self.config.device_name]
        if not found:
            named = (
                f" named {self.config.device_name!r} (connected: {names or 'none'})" if self.config.device_name else ""
            )
            raise DeviceError(f"no {wanted}{named} is connected: plug it in, unlock it and trust this Mac")
        if len(found) > 1:
            raise DeviceError(f"{len(found)} devices are connected ({names}): choose one with device_name=...")
        if str(found[0].developer_mode_state) != "enabled":
            raise DeviceError(
                f"{found[0].name}: developer mode is {found[0].developer_mode_state}: enable it in Settings"
            )
        return found[0]

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Takes samples from `protocol.restarts` loaded models, with a small sentinel network around each slice."""
        info = self.describe()
        try:
            with temporary_folder("coreml") as folder:
                sentinel = write_sentinel(folder / "sentinel.mlpackage")
                taken = [self._restart(artifact, sentinel, protocol) for _ in range(protocol.restarts)]
            planned = self.placement(artifact)
        except (ValueError, RuntimeError, OSError) as error:  # what coremltools raises for a model it cannot run
            raise DeviceError(f"{artifact.path.name} cannot be timed: {first_line(error)}") from None
        runs, samples = [run for run, _ in taken], [ms for _, part in taken for ms in part]
        units = self.config.compute_units
        beyond = sorted(set(planned) - ALLOWED[units])
        if beyond:
            raise DeviceError(f"{artifact.path.name}: requested {units}, and Core ML plans for {', '.join(beyond)}")
        runtime_info = {"compute_units": units, "planned": plan_text(planned)}
        return build_report(
            artifact, info, protocol, Measurement({"compute_units": units}, runtime_info, runs, samples)
        )

    def placement(self, artifact: ArtifactFile) -> dict[str, int]:
        """Counts the operations per processor that Core ML plans; operations without a plan are left out."""
        return dict(Counter(row["processor"] for row in self.operations(artifact) if row["processor"]))

    def operations(self, artifact: ArtifactFile, iterations: int = 16) -> list[dict[str, Any]]:
        """Times the operations of a file with coremltools' benchmarker.

        Args:
            artifact: the Core ML file.
            iterations: runs that each time is the median of.

        Returns:
            Per operation: `operator` (type), `processor` (planned, empty without a plan) and `ms` (None if not timed).
        """
        bench = self._benchmarker(artifact.path, self.config.compute_units)
        found = self._wait(bench.benchmark_operation_execution(seeded_noise(bench.model), iterations, True))
        rows = []
        for info in found:
            usage, statistics = info.compute_device_usage, info.measurement.statistics
            rows.append(
                {
                    "operator": info.spec.type,
                    "processor": processor_name(usage.preferred_compute_device) if usage is not None else "",
                    "ms": statistics.median if statistics is not None else None,
                }
            )
        return rows

    def close(self) -> None:
        """Ends the event loop and drops the phone's session."""
        if self._runner is not None:
            self._runner.close()
        self._runner = self._phone = None

    def _restart(self, artifact: ArtifactFile, sentinel: Path, protocol: Protocol) -> tuple[ProcessRun, list[float]]:
        check = self._timer(sentinel, "cpu_only")
        before = self._sentinel_ms(check)  # first, so that loading the network cannot warm the device before it
        bench = self._benchmarker(artifact.path, self.config.compute_units)
        load_ms = self._wait(bench.benchmark_load(1)).samples[0]
        pixels = seeded_noise(bench.model)

        def time_runs(runs: int) -> float:
            return float(sum(self._wait(bench.benchmark_predict(pixels, runs)).samples)) / 1e3

        first_run_ms = time_runs(1) * 1e3
        warm = warm_up(time_runs, protocol, time.perf_counter)
        samples: list[float] = []
        slices: list[Slice] = []
        began = time.perf_counter()
        for min_samples, min_s in slices_of(protocol):
            start = time.perf_counter() - began
            part = sample(time_runs, 1, min_samples, min_s)
            samples += part
            slices.append(Slice(start_s=start, samples=len(part), sentinel_ms=self._sentinel_ms(check)))
        run = ProcessRun(
            load_ms=load_ms,
            first_run_ms=first_run_ms,
            warmup_runs=warm.runs,
            warmup_settled=warm.settled,
            runs_per_sample=1,
            sentinel_before_ms=before,
            slices=tuple(slices),
        )
        return run, samples

    def _timer(self, path: Path, units: str) -> Callable[[int], list[float]]:
        bench = self._benchmarker(path, units)
        pixels = seeded_noise(bench.model, SENTINEL_SHAPE)
        return lambda runs: list(self._wait(bench.benchmark_predict(pixels, runs, True)).samples)

    @staticmethod
    def _sentinel_ms(check: Callable[[int], list[float]]) -> float:
        return median(check(SENTINEL_RUNS))

    def _benchmarker(self, path: Path, units: str) -> Any:
        kit = load_toolkit()
        return kit.benchmarker(kit.load(str(path), UNITS[units]), self._prepared_phone(kit))

    def _prepared_phone(self, kit: Toolkit) -> Any:
        """The phone with coremltools' runner app on it; None for this Mac."""
        if self.config.where == "mac":
            return None
        if self._phone is None:
            signing = kit.devices.AppSigningCredentials(
                development_team=self.config.team, bundle_identifier=None, provisioning_profile_uuid=None
            )
            try:
                self._phone = self._wait(self.connected().prepare_for_model_debugging(signing))
            except Exception as error:  # signing and Xcode fail in many ways
                raise DeviceError(
                    f"the runner app could not be built for the {self.config.where}: {first_line(error)}"
                ) from None
        return self._phone

    def _wait(self, task: Any) -> Any:
        """Runs one of the benchmarker's coroutines to its end; all of them share one event loop."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(task)
