"""The few things a remote device must be able to do, and what goes wrong with them."""

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
    """What a command on the device said."""

    status: int
    text: str


class Link(ABC):
    """A shell and a way to put files, both reconnecting by themselves for each call."""

    name: str
    """For messages: a serial number or a host."""

    @abstractmethod
    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run a POSIX shell command to its end; standard output and error together.

        Raises LinkLostError when the connection breaks, DeviceError when it never existed.
        """

    @abstractmethod
    def push(self, local: Path, remote: str) -> None:
        """Copy a file. Raises LinkLostError, or DeviceError (storage full, no permission)."""


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
