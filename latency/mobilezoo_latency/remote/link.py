"""The few things a remote device must be able to do, and what goes wrong with them."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import MobilezooError


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
