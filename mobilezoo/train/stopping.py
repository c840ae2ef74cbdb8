"""Stopping in order: SIGTERM (as clusters send it before they kill) and Ctrl-C end a run once its state is saved."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from mobilezoo.errors import MobilezooError, RunStoppedError
from mobilezoo.files import ROOM, system_error

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTE = b"\nstopping after this update, its state saved; Ctrl-C again ends at once\n"


class StopRequest:
    """What asked this process to stop, if anything did; read after every update."""

    def __init__(self, go_on: str, speaks: bool) -> None:
        self.go_on, self.speaks = go_on, speaks
        self.number = 0
        self._process = os.getpid()

    @property
    def asked(self) -> bool:
        return self.number != 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader process, which a terminal's Ctrl-C reaches too: it ends with this one
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if number == signal.SIGINT and self.speaks:
            os.write(2, NOTE)  # a print could come between the halves of another

    def stopped(self, where: str) -> RunStoppedError:
        """The error that ends the run, after `where` it stands."""
        names = {0: "a signal to another process", signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
        return RunStoppedError(f"{names[self.number]} {where}; to go on: {self.go_on}", self.number or signal.SIGTERM)


@contextlib.contextmanager
def stop_in_order(go_on: str, kept: Callable[[], str], speaks: bool) -> Iterator[StopRequest]:
    """SIGTERM and the first Ctrl-C become a request while inside; the second Ctrl-C raises RunStoppedError.

    `kept` tells then what is left. Outside the main thread signals cannot be caught: nothing changes.
    """
    request = StopRequest(go_on, speaks)
    before = {}
    try:
        with contextlib.suppress(ValueError):
            before = {number: signal.signal(number, request) for number in SIGNALS}
        yield request
    except KeyboardInterrupt:
        if not request.asked:
            raise
        raise request.stopped(f"twice: ended at once, {kept()}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def full_disk_told(go_on: str, folder: Path) -> Iterator[None]:
    """A run that was begun is resumed once there is room: the command that began it would be refused."""
    try:
        yield
    except Exception as error:
        found = system_error(error)
        if found is None or found.errno not in ROOM:
            raise
        what = f"{str(folder)!r}: {found.strerror}: free some space; what was saved is whole"
        raise MobilezooError(f"{what}; to go on: {go_on}") from error
