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
    """Handler of SIGTERM and SIGINT: records the signal, which the loop reads after every update."""

    def __init__(self, resume_command: str, announce: bool) -> None:
        self.resume_command, self.announce = resume_command, announce
        self.number = 0
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether this process has received a signal to stop."""
        return self.number != 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader process, which a terminal's Ctrl-C reaches too: it ends with this one
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if number == signal.SIGINT and self.announce:
            os.write(2, NOTE)  # a print could come between the halves of another

    def stopped(self, where: str) -> RunStoppedError:
        """The error that ends the run, after `where` it stands."""
        names = {0: "a signal to another process", signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
        return RunStoppedError(
            f"{names[self.number]} {where}; to go on: {self.resume_command}", self.number or signal.SIGTERM
        )


@contextlib.contextmanager
def stop_in_order(resume_command: str, kept: Callable[[], str], announce: bool) -> Iterator[StopRequest]:
    """SIGTERM and the first Ctrl-C become a request while inside; the second Ctrl-C raises RunStoppedError.

    Outside the main thread signals cannot be caught: nothing changes.

    Args:
        resume_command: named in the error.
        kept: returns what is saved so far, in words.
        announce: whether the first Ctrl-C prints a note; one process of a distributed run does.
    """
    request = StopRequest(resume_command, announce)
    before = {}
    try:
        with contextlib.suppress(ValueError):
            before = {number: signal.signal(number, request) for number in SIGNALS}
        yield request
    except KeyboardInterrupt:
        if not request.requested:
            raise
        raise request.stopped(f"twice: ended at once, {kept()}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def explain_full_disk(resume_command: str, folder: Path) -> Iterator[None]:
    """Turn a full disk, while inside, into an error that names the command to resume with once there is room.

    Args:
        resume_command: the command that began the run would be refused, as its folder exists.
        folder: the run folder.

    Raises:
        MobilezooError: the disk or the quota is full; other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        found = system_error(error)
        if found is None or found.errno not in ROOM:
            raise
        what = f"{str(folder)!r}: {found.strerror}: free some space; what was saved is whole"
        raise MobilezooError(f"{what}; to go on: {resume_command}") from error
