"""One trainer per run folder. `train.lock` in it names the process that writes; a dead trainer's lock is no obstacle.

On one machine the operating system's file lock decides. Between machines that share a folder it may not work, so the
holder also touches the file every BEAT_S seconds, and another machine takes over once that has stopped for SILENT_S.
"""

import contextlib
import errno
import os
import platform
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError
from mobilezoo.locks import locked
from mobilezoo.reading import read_json

NAME = "train.lock"
BEAT_S = 20.0
"""Between two signs of life."""
SILENT_S = 120.0
"""A trainer on another machine that gave none for so long is dead."""
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""What file systems without locks answer."""


class Holder(Record):
    """Who writes a run folder."""

    pid: int
    host: str
    since: str


@contextlib.contextmanager
def only_trainer_in(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where there is none. Raises MobilezooError where another trainer writes in it."""
    path, made = folder / NAME, [place for place in (folder, *folder.parents) if not place.exists()]
    _refuse_living(folder, of_here=False)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, wait=False))
        except BlockingIOError:
            raise MobilezooError(_busy(folder, read_holder(path))) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise MobilezooError(f"cannot write {str(folder)!r}: {error.strerror}: name another place") from None
            _refuse_living(folder, of_here=True)
            held.callback(path.unlink, missing_ok=True)
        try:
            with _signs_of_life(path):
                yield
        finally:
            held.close()
            with contextlib.suppress(OSError):  # nothing was begun in them, or they are not empty
                for place in made:
                    place.rmdir()


def read_holder(path: Path) -> Holder | None:
    """Who is named in a lock file; None where there is none, or nobody in it."""
    try:
        return Holder.parse(read_json(path))
    except (OSError, MobilezooError):
        return None


def _refuse_living(folder: Path, of_here: bool) -> None:
    """Raise MobilezooError where a process of another machine, or (`of_here`) of this one, gave a sign of life."""
    path = folder / NAME
    holder = read_holder(path)
    if holder is None or (holder.host == platform.node()) is not of_here or holder.pid == os.getpid():
        return
    with contextlib.suppress(FileNotFoundError):
        left = SILENT_S - (time.time() - path.stat().st_mtime)
        if left > 0:
            gone = f"if that process is gone, wait {left:.0f} seconds or delete {str(path)!r}"
            raise MobilezooError(f"{_busy(folder, holder)}; {gone}")


def _busy(folder: Path, holder: Holder | None) -> str:
    who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
    return f"{str(folder)!r} is being written by {who}: wait for it, or choose another folder (name=OTHER, --out PATH)"


@contextlib.contextmanager
def _signs_of_life(path: Path) -> Iterator[None]:
    """Name this process in the file and touch it now and then."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    holder = Holder(pid=os.getpid(), host=platform.node(), since=since)
    done = threading.Event()

    def touch() -> None:
        while not done.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)

    with contextlib.suppress(OSError):  # the name is for people: the lock holds without it
        path.write_text(holder.model_dump_json() + "\n", encoding="utf-8")
    beat = threading.Thread(target=touch, name="train.lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
