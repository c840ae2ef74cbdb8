"""Timing on a remote device: push, run detached, follow the output, survive a pulled cable.

The runner writes every sample to a file on the device as it takes it. The host reads that file from where it stopped
(`follow.py`), so a lost connection costs nothing: the run goes on, and after reconnecting the rest is read.

Every word that reaches a device's shell is quoted: paths and names come from configs that others may have written.
"""

import hashlib
import shlex
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError
from mobilezoo.files import sha256_of
from mobilezoo.latency_report import DeviceInfo, LatencyReport, ProcessRun, Protocol, Slice
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.registry import load_exporter
from mobilezoo_latency.contract import ArtifactFile, Command, Device, DeviceConfig, name_of
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.probe import write_probe
from mobilezoo_latency.protocol import slices_of
from mobilezoo_latency.remote.bundle import LOADER, runner_bundle, runner_command
from mobilezoo_latency.remote.follow import follow
from mobilezoo_latency.remote.link import Link, PatientLink
from mobilezoo_latency.remote.parsing import SliceTimes, parse_times
from mobilezoo_latency.remote.runners import RUNNERS, Runner, RunnerConfig
from mobilezoo_latency.remote.sending import send
from mobilezoo_latency.remote.state import CoreClass, DeviceState, core_classes, read_state
from mobilezoo_latency.reports import Measurement, build_report
from mobilezoo_latency.stats import median

SENTINEL = {"side": 32, "in_channels": 64, "out_channels": 64}
SENTINEL_PROTOCOL = "5 0.1 31 0.2"
FOLDER = r"^[A-Za-z0-9_./][A-Za-z0-9_./-]{0,199}$"
Cores = Literal["any", "big", "mid", "little"]


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
        info = self.describe()
        folder = self._install(link)
        # nothing of the local name goes to the device
        copy = f"{artifact.record.sha256[:16]}{load_exporter(artifact.record.target).suffix}"
        model = send(link, artifact.path, copy, folder)
        sentinel = self._put_sentinel(link, folder)
        pin = self._pin(link, protocol.threads)
        start = pin + shlex.join([*shlex.split(self.config.launcher), *runner_command(folder)])
        timed = self._timing(link, pin, start, model, protocol)
        runs, samples, jobs = [], [], list[SliceTimes]()
        for _ in range(protocol.restarts):
            run, taken = self._process(link, start, timed, sentinel, protocol, jobs)
            runs.append(run)
            samples += taken
        info = info.model_copy(update={"threads": protocol.threads})
        requested = {"threads": str(protocol.threads), "delegate": self._delegate(), "cores": self.config.cores}
        measured = Measurement(requested, self._runtime_info(jobs, protocol, link.name), runs, samples)
        return build_report(artifact, info, protocol, measured)

    def _delegate(self) -> str:
        return self.runner.config.delegate if self.runner else "XNNPACK"

    def _runtime_info(self, jobs: list[SliceTimes], protocol: Protocol, name: str) -> dict[str, str]:
        """Collects what the runner reports. Raises DeviceError if it used other threads than requested."""
        runtime_info: dict[str, str] = {"cores": self.config.cores}
        for threads in {job.threads for job in jobs if job.threads is not None}:
            if threads != protocol.threads:
                raise DeviceError(f"{name}: {protocol.threads} thread(s) were requested, and the runner used {threads}")
            runtime_info["threads"] = str(threads)
        if self.runner is None:
            return {**runtime_info, "delegate": "XNNPACK"}
        delegates = {job.delegate for job in jobs if job.delegate is not None}
        runtime_info["delegate"] = ", ".join(sorted(delegates)) or "not reported by this runner"
        if jobs[0].runs_per_sample > 1:
            runtime_info["samples"] = (
                f"means of about {jobs[0].runs_per_sample} runs: this runner reports no single ones"
            )
        return runtime_info

    def _timing(
        self, link: Link, pin: str, start: str, model: str, protocol: Protocol
    ) -> Callable[[int, float], SliceTimes]:
        """Returns a function that times one slice of (samples, seconds)."""
        runner = self.runner
        if runner is None:

            def ours(min_samples: int, min_s: float) -> SliceTimes:
                how = f"{protocol.warmup_runs} {protocol.warmup_s} {min_samples} {min_s}"
                return self._run(link, f"{start} {shlex.quote(model)} {protocol.threads} time {how}", min_s)

            return ours
        binary = self._put_runner(link, runner)
        place = shlex.quote(f"LD_LIBRARY_PATH={binary.rpartition('/')[0]}")
        prefix = f"env {place} {pin}{shlex.quote(binary)}"

        def theirs(min_samples: int, min_s: float) -> SliceTimes:
            def call(arguments: str) -> str:
                return follow(link, f"{prefix} {arguments} 2>&1", self.config.folder, min_s, self.sleep)

            return runner.slice(call, model, protocol, min_samples, min_s)

        return theirs

    def _put_runner(self, link: Link, runner: Runner) -> str:
        """Copies the user's binary and libraries; returns the binary's path on the device."""
        files = [Path(name).expanduser() for name in (runner.config.path, *runner.config.libraries)]
        folder = f"{self.config.folder}/{runner.config.kind}-{_key_of(files)}"
        for library in files[1:]:
            send(link, library, library.name, folder)  # the loader looks for it by this name
        binary = send(link, files[0], runner.config.kind, folder)
        link.shell(f"chmod 755 {shlex.quote(binary)}")
        return binary

    def _process(
        self,
        link: Link,
        start: str,
        timed: Callable[[int, float], SliceTimes],
        sentinel: str,
        protocol: Protocol,
        jobs: list[SliceTimes],
    ) -> tuple[ProcessRun, list[float]]:
        """Times the slices of one restart, each in a process on the device, with the sentinel before and after."""
        before = self._sentinel(link, start, sentinel)
        first: SliceTimes | None = None
        slices: list[Slice] = []
        samples: list[float] = []
        loads: list[float] = []
        began = time.monotonic()
        for min_samples, min_s in slices_of(protocol):
            began_slice = time.monotonic() - began
            state = read_state(link)
            job = timed(min_samples, min_s)
            jobs.append(job)
            first = first or job
            samples += job.samples_ms
            after = read_state(link)
            loads += [load for load in [after.other_load(state, protocol.threads)] if load is not None]
            slices.append(self._slice(began_slice, job, self._sentinel(link, start, sentinel), after))
        assert first is not None
        record = ProcessRun(
            load_ms=first.load_ms,
            first_run_ms=first.first_run_ms,
            warmup_runs=len(first.warmup_ms),
            warmup_settled=_settled(first, protocol),
            runs_per_sample=first.runs_per_sample,
            other_load=max(loads, default=None),
            sentinel_before_ms=before,
            slices=tuple(slices),
        )
        return record, samples

    def _slice(self, start_s: float, job: SliceTimes, sentinel_ms: float, state: DeviceState) -> Slice:
        return Slice(
            start_s=start_s,
            samples=len(job.samples_ms),
            sentinel_ms=sentinel_ms,
            temperature_c=state.temperature_c,
            frequency_mhz=state.frequency_mhz,
        )

    def _sentinel(self, link: Link, start: str, sentinel: str) -> float:
        return median(self._run(link, f"{start} {shlex.quote(sentinel)} 1 time {SENTINEL_PROTOCOL}", 0.2).samples_ms)

    def _pin(self, link: Link, threads: int) -> str:
        """Returns the prefix that pins a command to the chosen cores. Raises DeviceError for a missing core class."""
        if self.config.cores == "any":
            return ""
        chosen = pick_cores(core_classes(link), self.config.cores, threads, link.name)
        if link.shell("command -v taskset").status != 0:
            raise DeviceError(f"{link.name} has no taskset: cores cannot be chosen; use cores=any")
        return f"taskset {sum(1 << cpu for cpu in chosen.cpus):x} "

    def _install(self, link: Link) -> str:
        """Copies the runner to the device unless it is there; returns its folder."""
        bundle = runner_bundle(find_emulator())
        folder = f"{self.config.folder}/runner-{bundle.key}"
        for name, local in bundle.files.items():
            send(link, local, name, folder)
        programs = shlex.join(f"{folder}/{name}" for name in ("litert_run", LOADER))
        made = link.shell(f"chmod 755 {programs}")
        if made.status != 0:
            raise DeviceError(f"{link.name}: {folder}: {name_of(made.text)}")
        return folder

    def _put_sentinel(self, link: Link, folder: str) -> str:
        with temporary_folder("sentinel") as local:
            return send(link, write_probe(local / "sentinel.tflite", **SENTINEL), "sentinel.tflite", folder)

    def _run(self, link: Link, command: str, duration_s: float) -> SliceTimes:
        """Runs our runner and parses its output. Raises DeviceError."""
        return parse_times(follow(link, command, self.config.folder, duration_s, self.sleep))


def pick_cores(classes: list[CoreClass], wanted: Cores, threads: int, name: str) -> CoreClass:
    """Returns the core class to pin to.

    Args:
        classes: classes of the device, slowest first.
        wanted: `little`, `mid` or `big`.
        threads: cores that are needed.
        name: the device, for messages.

    Raises:
        DeviceError: no such class, or it has fewer cores than threads.
    """
    by_name: dict[str, CoreClass] = {}
    if classes:
        by_name = {"little": classes[0], "big": classes[-1]}
        if len(classes) > 2:
            by_name["mid"] = classes[len(classes) // 2]
    if wanted not in by_name:
        known = ", ".join(by_name) or "no core classes"
        raise DeviceError(f"{name} reports {known}: cores={wanted} cannot be chosen")
    chosen = by_name[wanted]
    if len(chosen.cpus) < threads:
        raise DeviceError(f"{name} has {len(chosen.cpus)} {wanted} core(s), and {threads} threads were requested")
    return chosen


def _key_of(files: list[Path]) -> str:
    """Hash of the contents and names of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{sha256_of(file)} {file.name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _settled(job: SliceTimes, protocol: Protocol) -> bool:
    """True if the last two windows of the warm-up agree."""
    window = min(max(protocol.warmup_runs // 2, 1), len(job.warmup_ms) // 2)
    if window == 0:
        return True
    last, previous = median(job.warmup_ms[-window:]), median(job.warmup_ms[-2 * window : -window])
    return abs(last - previous) <= protocol.stable_tolerance * previous
