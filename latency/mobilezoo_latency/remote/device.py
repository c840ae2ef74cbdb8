"""Timing on a remote device: push, run detached, follow the output, survive a pulled cable.

The runner writes every sample to a file on the device as it takes it. The host reads that file from where it stopped,
so a lost connection costs nothing: the run goes on, and after reconnecting the rest is read.
"""

import shlex
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import Field

from mobilezoo.artifacts import DeviceInfo, LatencyReport, ProcessRun, Protocol, Slice, sha256_of
from mobilezoo.errors import DeviceError
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig, utc_now
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.probe import write_probe
from mobilezoo_latency.protocol import judge, slices_of
from mobilezoo_latency.remote.bundle import runner_bundle, runner_command
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError
from mobilezoo_latency.remote.runners import RUNNERS, Job, Runner, RunnerConfig
from mobilezoo_latency.remote.state import CoreClass, DeviceState, core_classes, read_state
from mobilezoo_latency.stats import median, median_known

POLL_S = 0.5
SENTINEL = {"side": 32, "in_channels": 64, "out_channels": 64}
SENTINEL_PROTOCOL = "5 0.1 31 0.2"
Cores = Literal["any", "big", "mid", "little"]
T = TypeVar("T")


class RemoteConfig(DeviceConfig):
    """What every remote device is told."""

    folder: str = Field(pattern=r"^[A-Za-z0-9_./~-]+$", description="where files are put on the device")
    cores: Cores = Field(default="any", description="core class to pin to, by maximum clock")
    patience_s: float = Field(default=120.0, gt=0, description="how long a lost connection is waited for")
    launcher: str = Field(default="", description="put before the runner's command line; empty on a real device")
    runner: RunnerConfig | None = Field(default=None, description="a vendor's tool instead of our own LiteRT runner")


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
        """(product name, processor, system) as the device tells them."""

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
        """Raise DeviceError unless the device answers and the runner for it was built."""
        find_emulator()
        if self.runner:
            self.runner.check()
        link = self.open()
        machine = link.shell("uname -m").text.strip()
        if machine not in ("aarch64", "arm64") and not self.config.launcher:
            raise DeviceError(f"{link.name} is {machine or 'unknown'}, not arm64: the runner is built for arm64 only")

    def describe(self) -> DeviceInfo:
        """What the device says about itself, and the cores that are used."""
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
        """Samples from fresh processes on the device, between runs of a small sentinel network."""
        if self.runner:
            self.runner.check()
        link = _Patient(self.open(), self.config.patience_s, self.sleep)
        info = self.describe()
        folder = self._install(link)
        model = self._put(link, artifact.path, f"{artifact.record.sha256[:16]}{artifact.path.suffix}", folder)
        sentinel = self._put_sentinel(link, folder)
        pin = self._pin(link, protocol.threads)
        start = pin + " ".join(filter(None, [self.config.launcher, runner_command(folder)]))
        timed = self._timing(link, pin, start, model, protocol)
        runs, samples, jobs = [], [], list[Job]()
        for _ in range(protocol.restarts):
            run, taken = self._process(link, start, timed, sentinel, protocol, jobs)
            runs.append(run)
            samples += taken
        record = artifact.record
        return LatencyReport(
            artifact_sha256=record.sha256,
            artifact=artifact.path.name,
            target=record.target,
            precision=record.precision,
            model=record.model,
            device=info.model_copy(update={"threads": protocol.threads}),
            protocol=protocol,
            samples_ms=tuple(samples),
            load_ms=median_known(r.load_ms for r in runs),
            first_run_ms=median([r.first_run_ms for r in runs]),
            sentinel_before_ms=runs[0].sentinel_before_ms,
            sentinel_after_ms=runs[-1].slices[-1].sentinel_ms,
            noisy=judge(protocol, runs, samples),
            measured_at=utc_now(),
            requested={"threads": str(protocol.threads), "delegate": self._delegate(), "cores": self.config.cores},
            obtained=self._obtained(jobs, protocol, link.name),
            processes=tuple(runs),
        )

    def _delegate(self) -> str:
        return self.runner.config.delegate if self.runner else "XNNPACK"

    def _obtained(self, jobs: list[Job], protocol: Protocol, name: str) -> dict[str, str]:
        """What the runner said it used. Raises DeviceError where it used other threads than asked for."""
        obtained: dict[str, str] = {"cores": self.config.cores}
        for threads in {job.threads for job in jobs if job.threads is not None}:
            if threads != protocol.threads:
                raise DeviceError(f"{name}: {protocol.threads} thread(s) were asked for, and the runner used {threads}")
            obtained["threads"] = str(threads)
        if self.runner is None:
            return {**obtained, "delegate": "XNNPACK"}
        told = {job.delegate for job in jobs if job.delegate is not None}
        obtained["delegate"] = ", ".join(sorted(told)) if told else "not told by this runner"
        if jobs[0].runs_per_sample > 1:
            obtained["samples"] = f"means of about {jobs[0].runs_per_sample} runs: this runner tells no single ones"
        return obtained

    def _timing(self, link: Link, pin: str, start: str, model: str, protocol: Protocol) -> Callable[[int, float], Job]:
        """A function that times one slice of (runs, seconds)."""
        runner = self.runner
        if runner is None:

            def ours(min_samples: int, min_s: float) -> Job:
                how = f"{protocol.warmup_runs} {protocol.warmup_s} {min_samples} {min_s}"
                return self._run(link, f"{start} {shlex.quote(model)} {protocol.threads} time {how}", min_s)

            return ours
        binary = self._put_runner(link, runner)
        prefix = f"env LD_LIBRARY_PATH={shlex.quote(binary.rpartition('/')[0])} {pin}{binary}"

        def theirs(min_samples: int, min_s: float) -> Job:
            def call(arguments: str) -> str:
                return self._output(link, f"{prefix} {arguments} 2>&1", min_s)

            return runner.slice(call, model, protocol, min_samples, min_s)

        return theirs

    def _put_runner(self, link: Link, runner: Runner) -> str:
        """Copy the user's binary and libraries; returns the binary's path on the device."""
        local = Path(runner.config.path).expanduser()
        folder = f"{self.config.folder}/{runner.config.kind}-{sha256_of(local)[:16]}"
        for library in runner.config.libraries:
            self._put(link, Path(library).expanduser(), Path(library).name, folder)
        binary = self._put(link, local, runner.config.kind, folder)
        link.shell(f"chmod 755 {binary}")
        return binary

    def _process(
        self,
        link: Link,
        start: str,
        timed: Callable[[int, float], Job],
        sentinel: str,
        protocol: Protocol,
        jobs: list[Job],
    ) -> tuple[ProcessRun, list[float]]:
        """The slices of one restart, each a process on the device, with the sentinel before and after."""
        before = self._sentinel(link, start, sentinel)
        first: Job | None = None
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

    def _slice(self, start_s: float, job: Job, sentinel_ms: float, state: DeviceState) -> Slice:
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
        """What pins a command to the chosen cores. Raises DeviceError for a missing core class."""
        if self.config.cores == "any":
            return ""
        chosen = pick_cores(core_classes(link), self.config.cores, threads, link.name)
        if link.shell("command -v taskset").status != 0:
            raise DeviceError(f"{link.name} has no taskset: cores cannot be chosen; use cores=any")
        return f"taskset {sum(1 << cpu for cpu in chosen.cpus):x} "

    def _install(self, link: Link) -> str:
        """Put the runner on the device unless it is there; returns its folder."""
        bundle = runner_bundle(find_emulator())
        folder = f"{self.config.folder}/runner-{bundle.key}"
        for name, local in bundle.files.items():
            self._put(link, local, name, folder)
        made = link.shell(f"chmod 755 {folder}/litert_run {folder}/ld-linux-aarch64.so.1")
        if made.status != 0:
            raise DeviceError(f"{link.name}: {folder}: {made.text.strip()}")
        return folder

    def _put_sentinel(self, link: Link, folder: str) -> str:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="mobilezoo-sentinel-") as local:
            return self._put(link, write_probe(Path(local) / "sentinel.tflite", **SENTINEL), "sentinel.tflite", folder)

    def _put(self, link: Link, local: Path, name: str, folder: str) -> str:
        """Copy a file unless one of its size is there; names carry a hash, so equal size means equal file."""
        remote, size = f"{folder}/{name}", local.stat().st_size
        found = link.shell(f"mkdir -p {folder} && wc -c < {remote} 2>/dev/null")
        if found.text.strip() == str(size):
            return remote
        link.push(local, remote)
        arrived = link.shell(f"wc -c < {remote}").text.strip()
        if arrived != str(size):
            link.shell(f"rm -f {remote}")
            raise DeviceError(f"{link.name}: {name} arrived with {arrived or 0} of {size} bytes: is the storage full?")
        return remote

    def _run(self, link: Link, command: str, duration_s: float) -> Job:
        """What our runner said. Raises DeviceError."""
        return parse_job(self._output(link, command, duration_s))

    def _output(self, link: Link, command: str, duration_s: float) -> str:
        """Run a command detached and follow its output to the end. Raises DeviceError."""
        out = f"{self.config.folder}/run-{time.time_ns():x}.txt"
        wrapped = f"{{ {command}; }} > {out} 2> {out}.err; echo exit $? >> {out}"
        # In parentheses: a link may append a command of its own, and `&;` is no shell.
        link.shell(f"(nohup sh -c {shlex.quote(wrapped)} > /dev/null 2>&1 < /dev/null &)")
        limit = time.monotonic() + 300 + 20 * duration_s
        text, status = "", None
        while status is None:
            self.sleep(POLL_S)
            text += link.shell(f"tail -c +{len(text) + 1} {out} 2>/dev/null").text
            status = exit_status(text)
            if status is None and time.monotonic() > limit:
                raise DeviceError(f"{link.name}: no end of the run after {300 + 20 * duration_s:.0f} s")
        complaint = link.shell(f"cat {out}.err; rm -f {out} {out}.err").text
        if status != 0:
            said = (complaint or text.rpartition("exit ")[0]).splitlines()
            lines = [line for line in said if line.strip() and not line.startswith(("INFO", "WARNING"))]
            raise DeviceError(
                f"{link.name}: the runner ended with status {status}: {lines[-1] if lines else 'no word'}"
            )
        return text


class _Patient(Link):
    """A link that waits for the cable to come back."""

    def __init__(self, link: Link, patience_s: float, sleep: Callable[[float], None]) -> None:
        self._link, self._patience_s, self._sleep = link, patience_s, sleep
        self.name = link.name

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        return self._again(lambda: self._link.shell(command, limit_s))

    def push(self, local: Path, remote: str) -> None:
        self._again(lambda: self._link.push(local, remote))

    def _again(self, call: Callable[[], T]) -> T:
        waited, pause = 0.0, 0.5
        while True:
            try:
                return call()
            except LinkLostError as error:
                if waited >= self._patience_s:
                    raise DeviceError(f"{self.name}: connection lost for {waited:.0f} s: {error}") from None
                self._sleep(pause)
                waited, pause = waited + pause, min(2 * pause, 5.0)


def exit_status(text: str) -> int | None:
    """The runner's exit status, once its file holds the last line."""
    last = text.rstrip("\n").rpartition("\n")[2] if text.endswith("\n") else ""
    kind, _, value = last.partition(" ")
    return int(value) if kind == "exit" and value.isdigit() else None


def parse_job(text: str) -> Job:
    """The runner's `KEY VALUE` lines. Raises DeviceError when it said too little."""
    said: dict[str, list[float]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key in ("load_ms", "first_run_ms", "warmup_ms", "sample_ms"):
            said.setdefault(key, []).append(float(value))
    if not said.get("sample_ms") or not said.get("load_ms") or not said.get("first_run_ms"):
        raise DeviceError("the runner ended without samples")
    return Job(said["load_ms"][0], said["first_run_ms"][0], said.get("warmup_ms", []), said["sample_ms"])


def pick_cores(classes: list[CoreClass], wanted: Cores, threads: int, name: str) -> CoreClass:
    """The core class of that name. Raises DeviceError where there is none, or it has fewer cores than threads."""
    by_name: dict[str, CoreClass] = {}
    if classes:
        by_name = {"little": classes[0], "big": classes[-1]}
        if len(classes) > 2:
            by_name["mid"] = classes[len(classes) // 2]
    if wanted not in by_name:
        known = ", ".join(by_name) or "no core classes"
        raise DeviceError(f"{name} tells of {known}: cores={wanted} cannot be chosen")
    chosen = by_name[wanted]
    if len(chosen.cpus) < threads:
        raise DeviceError(f"{name} has {len(chosen.cpus)} {wanted} core(s), and {threads} threads were asked for")
    return chosen


def _settled(job: Job, protocol: Protocol) -> bool:
    """Whether the last two windows of the warm-up agree."""
    window = min(max(protocol.warmup_runs // 2, 1), len(job.warmup_ms) // 2)
    if window == 0:
        return True
    last, previous = median(job.warmup_ms[-window:]), median(job.warmup_ms[-2 * window : -window])
    return abs(last - previous) <= protocol.stable_tolerance * previous
