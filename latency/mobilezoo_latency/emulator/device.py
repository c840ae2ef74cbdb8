"""The device that counts: instructions, cycles, memory lines, and milliseconds where the core is calibrated."""

from typing import ClassVar

from mobilezoo.errors import DeviceError
from mobilezoo.latency_report import Counts, DeviceInfo, Estimate, LatencyReport, Protocol
from mobilezoo_export import Runner
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig
from mobilezoo_latency.emulator.cores import FITTED, Calibration, EmulatedConfig
from mobilezoo_latency.emulator.counting import count_blocks
from mobilezoo_latency.emulator.layout import Emulator, find_emulator
from mobilezoo_latency.emulator.pricing import cycles_of, floating_or_integer_macs
from mobilezoo_latency.emulator.runner import EmulatedRunner
from mobilezoo_latency.emulator.runtimes import RUNTIMES, find_runtime, installed_runtime
from mobilezoo_latency.reports import Measurement, build_report

COUNT = Protocol(name="count", warmup_runs=1, warmup_s=0.0, min_runs=1, min_s=0.0, max_repeats=1)
"""One warm-up run and one counted run; nothing is timed, so nothing else applies."""


class EmulatedDevice(Device):
    """One emulated core.

    Args:
        config: the core.
        target: export target of the files that it runs; each has its own runtime.
    """

    Config: ClassVar[type[DeviceConfig]] = EmulatedConfig
    config: EmulatedConfig

    def __init__(self, config: DeviceConfig, target: str = "litert") -> None:
        super().__init__(config)
        self.target = target

    def protocol_for(self, protocol: Protocol) -> Protocol:
        """Returns COUNT, the only protocol. Raises DeviceError for several threads: only one core is emulated."""
        if protocol.threads != 1:
            raise DeviceError(f"{self.config.name}: an emulated core runs one thread, not {protocol.threads}")
        return COUNT

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Returns this core with the artifact's runtime. Raises DeviceError if no emulated runtime runs such files."""
        target = artifact.record.target
        if target not in RUNTIMES:
            raise DeviceError(
                f"{artifact.path.name}: emulated cores run {', '.join(RUNTIMES)} files, and this is {target!r}: "
                "export with --to litert"
            )
        return EmulatedDevice(self.config, target)

    def check(self) -> None:
        """Raise DeviceError, with the command that prepares it, unless the emulator and the runtime are ready."""
        find_runtime(find_emulator(), self.target)

    def describe(self) -> DeviceInfo:
        """Identity by core, runtime, pricing model and versions; needs the prepared emulator."""
        emulator = find_emulator()
        installed, core = emulator.installed, self.config
        return DeviceInfo(
            name=core.name,
            kind="emulated",
            runtime=find_runtime(emulator, self.target).name,
            cpu=f"{core.qemu_cpu} part {core.cpu_part}, priced as {core.mca_cpu} (LLVM {installed.llvm})",
            os=f"QEMU {installed.qemu}",
        )

    def hint(self) -> str:
        """Returns the core, every runtime that is prepared, and the runtime that milliseconds rest on."""
        info, emulator = self.describe(), find_emulator()
        others = [t for t in RUNTIMES if t != self.target and (t == "litert" or installed_runtime(emulator, t))]
        runtimes = [info.runtime, *(find_runtime(emulator, target).name for target in others)]
        conversion = self.config.conversion
        rests = f"ms rest on {conversion.runtime or 'an unnamed runtime'}" if conversion else "counts without ms"
        return ", ".join((info.cpu, info.os, *runtimes, rests))

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Counts one warm run and adds the calibrated estimate."""
        emulator = find_emulator()
        counts = self.count(emulator, artifact)
        used = {"threads": "1", "delegate": RUNTIMES[self.target].delegate}
        estimate = self.estimate(counts, emulator.installed.llvm, artifact.record.precision)
        measured = Measurement(used, used, counts=counts, estimate=estimate)
        return build_report(artifact, self.describe(), protocol, measured)

    def open_runner(self, artifact: ArtifactFile) -> Runner:
        """The file on this core; every `run` is one process. Raises DeviceError, ExportError."""
        self.for_artifact(artifact)
        return EmulatedRunner(find_emulator(), self.config, artifact)

    def refresh(self, report: LatencyReport) -> LatencyReport:
        """Returns a cached report with the estimate of the present calibration."""
        if report.counts is None:
            return report
        llvm = find_emulator().installed.llvm
        return report.model_copy(update={"estimate": self.estimate(report.counts, llvm, report.precision)})

    def count(self, emulator: Emulator, artifact: ArtifactFile) -> Counts:
        """Counts instructions, cycles, memory lines and multiply-adds of one warm run.

        Args:
            emulator: the prepared emulator.
            artifact: the file, as accepted by `for_artifact`.
        """
        counted = count_blocks(emulator, self.config, artifact.path, target=self.target)
        return Counts(
            instructions=counted.instructions,
            cycles=cycles_of(emulator, self.config, counted.blocks),
            dram_lines=counted.misses[-1] if counted.misses else None,
            macs=floating_or_integer_macs(emulator, self.config, counted.blocks),
        )

    def estimate(self, counts: Counts, llvm: str, precision: str = FITTED) -> Estimate | None:
        """Estimates milliseconds by the core's calibration.

        Args:
            counts: counts of one run on this core.
            llvm: LLVM version that the cycles come from.
            precision: of the file, whose error the estimate carries where it is known.

        Returns:
            The estimate; None without a calibration, or with one of another LLVM version or runtime: those that
            there are rest on LiteRT.
        """
        calibration = self.config.conversion
        if calibration is None or self.target != "litert" or calibration.llvm.split(".")[0] != llvm.split(".")[0]:
            return None
        return estimate_of(calibration, counts, precision)


def estimate_of(calibration: Calibration, counts: Counts, precision: str = FITTED) -> Estimate:
    """Applies a calibration to counts.

    Args:
        calibration: milliseconds per cycle of one real board.
        counts: counts of one run on the core of that calibration.
        precision: of the file.
    """
    cycles = counts.cycles + calibration.dram_cycles * (counts.dram_lines or 0)
    latency_ms = cycles / 1e6 * calibration.ms_per_megacycle
    measured_on, error = calibration.error_on(precision)
    return Estimate(
        latency_ms=latency_ms,
        low_ms=latency_ms * error.low_ratio,
        high_ms=latency_ms * error.high_ratio,
        error_percent=error.error_percent,
        measured_on=measured_on,
        basis=calibration.basis if measured_on == FITTED else f"{calibration.basis}; error: {error.basis}",
    )
