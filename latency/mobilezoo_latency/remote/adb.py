"""Android phones through adb (adbutils speaks to the adb server; `adb` itself must be running or installed)."""

import shlex
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError, printable, require
from mobilezoo_latency.contract import DeviceConfig
from mobilezoo_latency.remote.device import FOLDER, RemoteConfig, RemoteDevice
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError
from mobilezoo_latency.remote.said import name_of


class AdbConfig(RemoteConfig):
    """Which phone."""

    type: Literal["adb"] = "adb"
    serial: str = Field(default="", description="needed when more than one phone is connected")
    server: str = Field(default="127.0.0.1", description="host of the adb server")
    port: int = Field(default=5037, gt=0, lt=65536, description="port of the adb server")
    folder: str = Field(default="/data/local/tmp/mobilezoo", pattern=FOLDER)


class AdbLink(Link):
    """Commands and files through the adb server."""

    def __init__(self, device: Any, serial: str) -> None:
        self._device, self.name = device, serial

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        from adbutils import AdbError, AdbTimeout

        try:
            said = self._device.shell2(command, timeout=limit_s)
        except (AdbError, AdbTimeout, OSError, ValueError) as error:  # ValueError: cut off inside the exit status
            raise LinkLostError(str(error)) from None
        return Answer(int(said.returncode), str(said.output))

    def push(self, local: Path, remote: str) -> None:
        from adbutils import AdbError, AdbTimeout

        try:
            self._device.sync.push(str(local), remote)
        except (AdbTimeout, OSError) as error:
            raise LinkLostError(str(error)) from None
        except AdbError as error:
            # adbutils tells no reason: a phone that still answers has refused the file itself.
            folder = shlex.quote(remote.rpartition("/")[0])
            free = printable(self.shell(f"df -k {folder} | tail -n 1").text.strip())
            raise DeviceError(
                f"{self.name}: cannot write {remote!r} ({error}): is the storage full? df says: {free}"
            ) from None


class AdbDevice(RemoteDevice):
    """A phone with USB debugging allowed."""

    Config: ClassVar[type[DeviceConfig]] = AdbConfig
    kind = "phone"
    config: AdbConfig

    def open(self) -> Link:
        require("adbutils", "devices")
        from adbutils import AdbClient, AdbError, AdbTimeout

        client = AdbClient(host=self.config.server, port=self.config.port)
        try:
            states = {item.serial: item.state for item in client.list()}
        except (AdbError, AdbTimeout, OSError) as error:
            raise DeviceError(
                f"no adb server at {self.config.server}:{self.config.port} ({error}): run `adb start-server`"
            ) from None
        return AdbLink(client.device(serial=self._choose(states)), self._choose(states))

    def identity(self, link: Link) -> tuple[str, str, str]:
        names = (
            "ro.product.manufacturer",
            "ro.product.model",
            "ro.soc.model",
            "ro.board.platform",
            "ro.build.version.release",
        )
        said = link.shell("; ".join(f"getprop {name}" for name in names)).text.split("\n")
        maker, model, soc, board, release = [*map(name_of, said), *[""] * 5][:5]
        return f"{maker} {model}".strip() or link.name, soc or board, f"Android {release}"

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
