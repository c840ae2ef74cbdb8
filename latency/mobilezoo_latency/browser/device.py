"""The browser device: the user opens a link on a phone, the page times WebAssembly and sends the samples back.

Kind `browser`: relative numbers. No NPU, no half-precision arithmetic, another clock: never deployment latency.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mobilezoo.errors import DeviceError, printable, require
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo.scratch import temporary_folder
from mobilezoo.workers import bound
from mobilezoo_latency.browser.assets import NAMES, VERSIONS, find_assets
from mobilezoo_latency.browser.certificate import require_openssl
from mobilezoo_latency.browser.handler import PAGE
from mobilezoo_latency.browser.messages import Hello, Result, job_of, limit_s, usable
from mobilezoo_latency.browser.reach import Reach, one_address, qr_code, way_of
from mobilezoo_latency.browser.reporting import input_and_output, report_of, runtime_info_of
from mobilezoo_latency.browser.server import PageServer
from mobilezoo_latency.contract import NAME, ArtifactFile, Command, Device, DeviceConfig, name_of

POLL_S = 0.2
RUNTIMES = {"litert": ("LiteRT.js", "@litertjs/core"), "onnx": ("onnxruntime-web", "onnxruntime-web")}
PAGE_FILES = ("page.css", "page.mjs", "measure.mjs")
TYPES = {
    "litert": ("float32", "int32", "uint8"),
    "onnx": ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"),
}
"""Input types that the JavaScript runtimes take."""


class BrowserConfig(DeviceConfig):
    """How the page is reached and opened."""

    type: Literal["browser"] = "browser"
    reach: Reach = Field(default="lan", description="who can open the page")
    address: Annotated[str, AfterValidator(one_address)] = Field(
        default="", description="of this machine, to listen on with reach=lan; by default that of the default route"
    )
    scheme: Literal["auto", "https", "http"] = Field(
        default="auto", description="auto: https for lan (self-signed: browsers warn once), http for localhost"
    )
    phone: str = Field(
        default="", pattern=NAME, description="what to call the phone; its results are found again by this name"
    )
    open: Command = Field(default="", description="a command that opens the page on this machine; the link is appended")
    patience_s: float = Field(default=300.0, gt=0, description="how long a silent browser is waited for")

    @model_validator(mode="after")
    def _address_is_for_lan(self) -> Self:
        if self.address and self.reach == "localhost":
            raise ValueError("no address with reach=localhost, which listens on 127.0.0.1: use reach=lan")
        return self

    @property
    def https(self) -> bool:
        """True if the connection is encrypted."""
        return self.scheme == "https" or (self.scheme == "auto" and self.reach == "lan")

    def commands(self) -> dict[str, str]:
        return {"open": f"open {self.open!r}"} if self.open else {}


class BrowserDevice(Device):
    """The browser that opens the page first. `close` ends the page and the server."""

    Config: ClassVar[type[DeviceConfig]] = BrowserConfig
    config: BrowserConfig

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self.on_message: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self._server: PageServer | None = None
        self._target = "litert"
        self._number = 0
        self._stack = contextlib.ExitStack()

    def for_artifact(self, artifact: ArtifactFile) -> Device:
        """Returns itself, set to the artifact's runtime. Raises DeviceError if no browser runtime takes the file."""
        record = artifact.record
        if record.target not in RUNTIMES:
            raise DeviceError(
                f"{artifact.path.name}: no browser runtime for {record.target!r}: export to {' or '.join(RUNTIMES)}"
            )
        if record.input.dtype not in TYPES[record.target]:
            raise DeviceError(
                f"{artifact.path.name} takes {record.input.dtype}, and {RUNTIMES[record.target][0]} only "
                f"{', '.join(TYPES[record.target])}: use --device host"
            )
        self._target = record.target
        return self

    def check(self) -> None:
        """Raise DeviceError, with the line that prepares them, unless the JavaScript runtimes are there."""
        find_assets()
        if self.config.https:
            require_openssl()
        if not self.config.open:
            require("segno", "devices")
        elif shutil.which(shlex.split(self.config.open)[0]) is None:
            raise DeviceError(
                f"{shlex.split(self.config.open)[0]} not found: install it, or use --device browser and open the link"
            )

    def hint(self) -> str:
        """Versions of the runtimes, and how the page is opened."""
        runtimes = ", ".join(f"{title} {VERSIONS[package]}" for title, package in RUNTIMES.values())
        return f"{runtimes}; {'opens ' + self.config.open if self.config.open else 'waits for a browser'}"

    def describe(self) -> DeviceInfo:
        """Identity as reported by the connected browser; waits for one. Raises DeviceError."""
        hello = self._browser()
        shown = {key: name_of(getattr(hello, key)) for key in ("model", "browser", "system")}
        title, package = RUNTIMES[self._target]
        vectors = "relaxed SIMD" if hello.relaxed_simd else "SIMD" if hello.simd else "no SIMD"
        return DeviceInfo(
            # Browsers hide what phone they run on: without a name from the user, two phones must not share results.
            name=f"{self.config.phone or shown['model'] or f'unnamed {hello.client[:6]}'}, {shown['browser']}",
            kind="browser",
            runtime=f"{title} {VERSIONS[package]} (WebAssembly)",
            cpu=f"{hello.cores} cores, {vectors}",
            os=shown["system"],
            details={
                "user_agent": printable(hello.user_agent),
                "isolated": str(hello.isolated),
                "webgpu_offered": str(hello.webgpu),
                "timer_step_ms": f"{hello.timer_step_ms:.4g}",
            },
        )

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Takes samples from reloaded pages. Raises DeviceError when the browser goes silent or uses other threads."""
        info = self.describe()
        hello = self._browser()
        if protocol.threads > 1 and not hello.isolated:
            raise DeviceError(
                f"{protocol.threads} threads need a cross-origin isolated page: use scheme=https, or reach=localhost "
                "(adb reverse) for an Android phone"
            )
        server = self._serving()
        fed, expected = input_and_output(artifact)
        server.blobs = {"model": artifact.path.read_bytes(), "input": fed}
        results: list[Result] = []
        built = ""
        for restart in range(protocol.restarts):
            title = artifact.path.name + (f" ({restart + 1} of {protocol.restarts})" if protocol.restarts > 1 else "")
            self._number += 1
            job = job_of(self._number, self._target, title, artifact.record.input, protocol)
            server.give(job)
            results.append(self._wait(server, job, limit_s(protocol)))
            built = next((name for name in server.served if name.endswith(".wasm")), "")
        runtime_info = runtime_info_of(results, hello, built, expected, artifact)
        return report_of(info, artifact, protocol, results, runtime_info)

    def close(self) -> None:
        """End the page, the server and what was opened."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._stack.close()

    def _browser(self) -> Hello:
        """The connected browser; the first call opens the page and waits. Raises DeviceError."""
        server = self._serving()
        began = time.monotonic()
        while server.hello is None:
            if time.monotonic() - began > self.config.patience_s:
                self.close()
                raise DeviceError(f"no browser opened the link within {self.config.patience_s:.0f} s")
            time.sleep(POLL_S)
        return server.hello

    def _serving(self) -> PageServer:
        if self._server is None:
            assets = find_assets()
            files = {name: assets / name for name in NAMES} | {name: PAGE / name for name in PAGE_FILES}
            way = way_of(self.config.reach, self.config.address, self.config.https)
            tls = way.certificate.context if way.certificate else None
            self._server = PageServer(way.address, way.names, files, tls)
            self._invite(self._server.url, way.note)
        return self._server

    def _invite(self, url: str, note: str) -> None:
        """Opens the page, or prints its link and a QR code, with who can reach it and what protects it."""
        if self.config.open:
            self._stack.enter_context(_opened(shlex.split(self.config.open), url))
            return
        self.on_message(f"{qr_code(url)}open on the phone: {url}\n{note}")

    def _wait(self, server: PageServer, job: dict[str, Any], most_s: float) -> Result:
        """Waits for the result of the running job. Raises DeviceError for silence, no end, or an error of the page."""
        title, shown, began = job["title"], "", time.monotonic()
        while (result := server.take_result()) is None:
            if time.monotonic() - server.last_heard > self.config.patience_s:
                self.close()
                raise DeviceError(f"{title}: the browser went silent for {self.config.patience_s:.0f} s: page closed?")
            if time.monotonic() - began > most_s:
                self.close()
                raise DeviceError(f"{title}: the browser gave no result in {most_s:.0f} s")
            if server.progress.partition(",")[0] != shown:  # a line per stage; the page itself shows the percents
                shown = server.progress.partition(",")[0]
                self.on_message(f"{title}: {shown}")
            time.sleep(POLL_S)
        if result.error:
            raise DeviceError(f"{title}: the browser reports: {printable(' '.join(result.error.split()))[:500]}")
        if not usable(result, job):
            raise DeviceError(f"{title}: the browser sent an incomplete result")
        return result


@contextlib.contextmanager
def _opened(command: list[str], url: str) -> Iterator[None]:
    """A browser started for this measurement, with a profile of its own; ended with it."""
    with temporary_folder("browser") as profile:
        if "chrom" in Path(command[0]).name:
            command = [*command, f"--user-data-dir={profile}"]
            command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to start otherwise
        process = subprocess.Popen(bound([*command, url]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
