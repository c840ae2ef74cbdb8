"""Android phones through adb (adbutils speaks to the adb server; `adb` itself must be running or installed)."""

import secrets
import shlex
import struct
import subprocess
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError, printable, require
from mobilezoo_latency.contract import DeviceConfig, name_of
from mobilezoo_latency.remote.bounded import PIECE_BYTES, read_all
from mobilezoo_latency.remote.device import FOLDER, RemoteConfig, RemoteDevice
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError

STEP_S = 30.0
"""Seconds for one step of the adb server or the phone."""


class AdbConfig(RemoteConfig):
    """Selects the phone."""

    type: Literal["adb"] = "adb"
    serial: str = Field(
        default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._:-]{0,99})?$", description="needed when several are connected"
    )
    server: str = Field(
        default="127.0.0.1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,252}$", description="host of the adb server"
    )
    port: int = Field(default=5037, gt=0, lt=65536, description="port of the adb server")
    folder: str = Field(
        default="/data/local/tmp/mobilezoo", pattern=FOLDER, description="where files are put on the phone"
    )


class AdbLink(Link):
    """Commands and files through the adb server. The status of a command is printed after a mark of this run."""

    def __init__(self, device: Any, serial: str) -> None:
        self._device, self.name, self._mark = device, serial, f"mobilezoo-{secrets.token_hex(8)} ".encode()

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        try:
            printed = self._output(f"{command}; printf '{self._mark.decode()}%s\\n' $?", limit_s)
        except broken() as error:
            raise LinkLostError(_reason(error)) from None
        output, marked, status = printed.rpartition(self._mark)
        if not marked or not status.strip().isdigit():
            raise LinkLostError("the answer was cut off")
        return Answer(int(status), output.decode(errors="replace"))

    def push(self, local: Path, remote: str) -> None:
        from adbutils import AdbError, AdbTimeout

        try:
            self._device.sync.push(str(local), remote)
        except broken() as error:
            if isinstance(error, AdbError) and not isinstance(error, AdbTimeout):
                # adbutils gives no reason: a phone that still answers has refused the file itself.
                raise self._refused(remote, error) from None
            raise LinkLostError(_reason(error)) from None

    def _output(self, command: str, limit_s: float) -> bytes:
        def read(left_s: float) -> bytes:
            connection.conn.settimeout(left_s)
            return bytes(connection.recv(PIECE_BYTES))

        with self._device.open_transport(timeout=min(limit_s, STEP_S)) as connection:
            connection.send_command(f"shell:{command}")
            connection.check_okay()
            return read_all(read, limit_s)

    def _refused(self, remote: str, error: Exception) -> DeviceError:
        folder = shlex.quote(remote.rpartition("/")[0])
        free = printable(self.shell(f"df -k {folder} | tail -n 1").text.strip()[:200])
        return DeviceError(
            f"{self.name}: cannot write {remote!r} ({_reason(error)}): is the storage full? df says: {free}"
        )


def broken() -> tuple[type[Exception], ...]:
    """Exceptions of adbutils when server, cable or phone go away, or send a malformed answer."""
    from adbutils import AdbError

    # Its own asserts and number parsing meet an answer that ends early.
    return (AdbError, OSError, ValueError, EOFError, AssertionError, struct.error, subprocess.SubprocessError)


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:200]) or type(error).__name__


class AdbDevice(RemoteDevice):
    """A phone with USB debugging allowed."""

    Config: ClassVar[type[DeviceConfig]] = AdbConfig
    kind = "phone"
    config: AdbConfig

    def open(self) -> Link:
        require("adbutils", "devices")
        from adbutils import AdbClient

        client = AdbClient(host=self.config.server, port=self.config.port, socket_timeout=STEP_S)
        try:
            states = {item.serial: item.state for item in client.list()}
        except broken() as error:
            raise DeviceError(
                f"no adb server at {self.config.server}:{self.config.port} ({_reason(error)}): run `adb start-server`"
            ) from None
        serial = self._choose(states)
        return AdbLink(client.device(serial=serial), serial)

    def identity(self, link: Link) -> tuple[str, str, str]:
        names = (
            "ro.product.manufacturer",
            "ro.product.model",
            "ro.soc.model",
            "ro.board.platform",
            "ro.build.version.release",
        )
        printed = link.shell("; ".join(f"getprop {name}" for name in names)).text.split("\n")
        maker, model, soc, board, release = [*map(name_of, printed), *[""] * 5][:5]
        return f"{maker} {model}".strip() or name_of(link.name), soc or board, f"Android {release}"

    def _choose(self, states: dict[str, str]) -> str:
        """The serial to use. Raises DeviceError for none, several, or one that does not answer."""
        if not states:
            raise DeviceError("no Android phone found: connect one by USB and allow USB debugging (Developer options)")
        serial = self.config.serial
        if not serial:
            if len(states) > 1:
                raise DeviceError(
                    f"{len(states)} phones are connected ({', '.join(states)}): choose one with serial=..."
                )
            (serial,) = states
        if serial not in states:
            raise DeviceError(f"no phone {serial!r}: connected are {', '.join(states)}")
        if states[serial] == "unauthorized":
            raise DeviceError(f"phone {serial} is not authorised: unlock it and accept this computer's key")
        if states[serial] != "device":
            raise DeviceError(f"phone {serial} is {states[serial]}: unlock it, or plug it in again")
        return serial
