"""Timing on a remote device: push, run detached, follow the output, survive a pulled cable.

The runner writes every sample to a file on the device as it takes it. The host reads that file from where it stopped
(`follow.py`), so a lost connection costs nothing: the run goes on, and after reconnecting the rest is read.

Every word that reaches a device's shell is quoted: paths and names come from configs that others may have written.
"""

import shlex
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError
from mobilezoo.files import sha256_of
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_export.registry import load_exporter
from mobilezoo_latency.contract import ArtifactFile, Command, Device, DeviceConfig, name_of
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.remote.bundle import install_runner, runner_command, send_sentinel
from mobilezoo_latency.remote.follow import follow
from mobilezoo_latency.remote.link import Link, PatientLink
from mobilezoo_latency.remote.parsing import SliceTimes, parse_times
from mobilezoo_latency.remote.restart import TimeSlice, time_restart
from mobilezoo_latency.remote.runners import RUNNERS, Runner, RunnerConfig
from mobilezoo_latency.remote.sending import send, send_runner
from mobilezoo_latency.remote.state import Cores, core_classes, pick_cores
from mobilezoo_latency.reports import Measurement, build_report
from mobilezoo_latency.stats import median

SENTINEL_S = 0.2
SENTINEL_PROTOCOL = f"5 0.1 31 {SENTINEL_S}"
"""Arguments of our runner: warm-up runs and seconds, samples and seconds."""
FOLDER = r"^[A-Za-z0-9_./][A-Za-z0-9_./-]{0,199}$"


class RemoteConfig(DeviceConfig):
    """Settings of every remote device."""

    folder: str = Field(pattern=FOLDER, description="where files are put on the device")
    cores: Cores = Field(default="any", description="core class to pin to, by maximum clock")
    patience_s: float = Field(default=120.0, gt=0, description="how long a lost connection is waited for")
    launcher: Command = Field(default="", description="put before the runner's command line; empty on a real device")
    runner: RunnerConfig | None = Field(default=None, description="a vendor's tool instead of our own LiteRT runner")

    def commands(self) -> dict[str, str]:
        return {"launcher": f"launcher {self.launcher!r}"} if self.launcher else {}


class RemoteDevice(Device):
    """A device behind a Link."""

    kind: ClassVar[Literal["phone", "board"]]
    config: RemoteConfig
    sleep: Callable[[float], None] = staticmethod(time.sleep)

    @abstractmethod
    def open(self) -> Link:
        """Find the device. Raises DeviceError or MissingToolError, with the remedy."""

    @abstractmethod
    def identity(self, link: Link) -> tuple[str, str, str]:
        """Returns (product name, processor, system) as the device reports them."""

    @property
    def runner(self) -> Runner | None:
        """The user's own runner; None for ours."""
        named = self.config.runner
        return RUNNERS[named.kind](named) if named is not None else None

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Itself, for files its runner takes. Raises DeviceError for others."""
        target = self.runner.target if self.runner else "litert"
        if artifact.record.target != target:
            raise DeviceError(
                f"{artifact.path.name}: {self.config.name} runs {target} files, and this is "
                f"{artifact.record.target!r}: export with --to {target}"
            )
        return self

    def check(self) -> None:
        """Raise DeviceError unless the device answers and its runner was built; what the user must name comes first."""
        if self.runner:
            self.runner.check()
        link = self.open()
        machine = name_of(link.shell("uname -m").text)
        if machine not in ("aarch64", "arm64") and not self.config.launcher:
            raise DeviceError(f"{link.name} is {machine or 'unknown'}, not arm64: the runner is built for arm64 only")
        find_emulator()

    def describe(self) -> DeviceInfo:
        """Identity as reported by the device, and the core class in use."""
        link = self.open()
        name, cpu, system = self.identity(link)
        cores = f", {self.config.cores} cores" if self.config.cores != "any" else ""
        return DeviceInfo(name=name, kind=self.kind, runtime=self._runtime(), cpu=cpu + cores, os=system)

    def _runtime(self) -> str:
        if self.runner is None:
            return f"LiteRT {find_emulator().installed.litert} (XNNPACK)"
        named = self.runner.config
        return f"{self.runner.runtime} {sha256_of(Path(named.path).expanduser())[:8]} ({named.delegate})"

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Takes samples in fresh processes on the device, between runs of a small sentinel network."""
        if self.runner:
            self.runner.check()
        link = PatientLink(self.open(), self.config.patience_s, self.sleep)
        info = self.describe().model_copy(update={"threads": protocol.threads})
        folder = install_runner(link, self.config.folder)
        # nothing of the local name goes to the device
        copy = f"{artifact.record.sha256[:16]}{load_exporter(artifact.record.target).suffix}"
        model = send(link, artifact.path, copy, folder)
        sentinel = send_sentinel(link, folder)
        pin = self._pin(link, protocol.threads)
        start = pin + shlex.join([*shlex.split(self.config.launcher), *runner_command(folder)])
        time_slice = self._timing(link, pin, start, model, protocol)
        time_sentinel = partial(self._sentinel_ms, link, f"{start} {shlex.quote(sentinel)}")
        restarts = [time_restart(link, protocol, time_slice, time_sentinel) for _ in range(protocol.restarts)]
        timed = [times for _, slices in restarts for times in slices]
        requested = {"threads": str(protocol.threads), "delegate": self._delegate(), "cores": self.config.cores}
        return build_report(
            artifact,
            info,
            protocol,
            Measurement(
                requested=requested,
                runtime_info=self._runtime_info(timed, protocol, link.name),
                runs=[run for run, _ in restarts],
                samples_ms=[ms for times in timed for ms in times.samples_ms],
            ),
        )

    def _delegate(self) -> str:
        return self.runner.config.delegate if self.runner else "XNNPACK"

    def _runtime_info(self, timed: list[SliceTimes], protocol: Protocol, name: str) -> dict[str, str]:
        """Collects what the runner reports. Raises DeviceError if it used other threads than requested."""
        runtime_info: dict[str, str] = {"cores": self.config.cores}
        for threads in {times.threads for times in timed if times.threads is not None}:
            if threads != protocol.threads:
                raise DeviceError(f"{name}: {protocol.threads} thread(s) were requested, and the runner used {threads}")
            runtime_info["threads"] = str(threads)
        if self.runner is None:
            return {**runtime_info, "delegate": "XNNPACK"}
        delegates = {times.delegate for times in timed if times.delegate is not None}
        runtime_info["delegate"] = ", ".join(sorted(delegates)) or "not reported by this runner"
        if timed[0].runs_per_sample > 1:
            runtime_info["samples"] = (
                f"means of about {timed[0].runs_per_sample} runs: this runner reports no single ones"
            )
        return runtime_info

    def _timing(self, link: Link, pin: str, start: str, model: str, protocol: Protocol) -> TimeSlice:
        """Returns a function that times one slice of (samples, seconds)."""
        runner = self.runner
        if runner is None:

            def ours(min_samples: int, min_s: float) -> SliceTimes:
                how = f"{protocol.warmup_runs} {protocol.warmup_s} {min_samples} {min_s}"
                return self._run(link, f"{start} {shlex.quote(model)} {protocol.threads} time {how}", min_s)

            return ours
        binary = send_runner(link, runner, self.config.folder)
        place = shlex.quote(f"LD_LIBRARY_PATH={binary.rpartition('/')[0]}")
        prefix = f"env {place} {pin}{shlex.quote(binary)}"

        def theirs(min_samples: int, min_s: float) -> SliceTimes:
            def call(arguments: str) -> str:
                return follow(link, f"{prefix} {arguments} 2>&1", self.config.folder, min_s, self.sleep)

            return runner.slice(call, model, protocol, min_samples, min_s)

        return theirs

    def _sentinel_ms(self, link: Link, command: str) -> float:
        return median(self._run(link, f"{command} 1 time {SENTINEL_PROTOCOL}", SENTINEL_S).samples_ms)

    def _pin(self, link: Link, threads: int) -> str:
        """Returns the prefix that pins a command to the chosen cores. Raises DeviceError for a missing core class."""
        if self.config.cores == "any":
            return ""
        chosen = pick_cores(core_classes(link), self.config.cores, threads, link.name)
        if link.shell("command -v taskset").status != 0:
            raise DeviceError(f"{link.name} has no taskset: cores cannot be chosen; use cores=any")
        return f"taskset {sum(1 << cpu for cpu in chosen.cpus):x} "

    def _run(self, link: Link, command: str, duration_s: float) -> SliceTimes:
        """Runs our runner and parses its output. Raises DeviceError."""
        return parse_times(follow(link, command, self.config.folder, duration_s, self.sleep))
