"""The link contract: a shell and file transfer on a remote device, and their failures."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from mobilezoo.errors import DeviceError, MobilezooError

T = TypeVar("T")


class LinkLostError(MobilezooError):
    """The connection broke; the device may still be there, and what was started on it goes on."""


class Answer(NamedTuple):
    """Exit status and output of a command on the device."""

    status: int
    text: str


class Link(ABC):
    """A shell and a way to put files, both reconnecting by themselves for each call."""

    name: str
    """For messages: a serial number or a host."""

    @abstractmethod
    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        """Runs a POSIX shell command to its end.

        Args:
            command: already quoted.
            limit_s: seconds for the whole call.

        Returns:
            Exit status, and standard output and error together.

        Raises:
            LinkLostError: the connection broke, or the limit has passed.
            DeviceError: there was never a connection, or no POSIX shell at its end.
        """

    @abstractmethod
    def push(self, local: Path, remote: str) -> None:
        """Copies a file to the device.

        Args:
            local: the file here.
            remote: its path there; the folder exists.

        Raises:
            LinkLostError: the connection broke.
            DeviceError: storage full, or no permission.
        """


class PatientLink(Link):
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
            began = time.monotonic()
            try:
                return call()
            except LinkLostError as error:
                waited += time.monotonic() - began  # a call that hangs is part of the wait
                if waited >= self._patience_s:
                    raise DeviceError(f"{self.name}: connection lost for {waited:.0f} s: {error}") from None
                self._sleep(pause)
                waited, pause = waited + pause, min(2 * pause, 5.0)
