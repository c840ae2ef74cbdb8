"""A lock on a path, held by one process at a time.

The system releases it when its process ends, for whatever reason. The file is removed on an orderly release.
"""

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_HELD: "weakref.WeakSet[IO[str]]" = weakref.WeakSet()


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a lock inside of a `with` block.

    Args:
        path: the lock file, created where it is missing, its folder too.
        wait: wait until another process releases the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _taken(path, wait)
    _HELD.add(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file; another waits for it there
            path.unlink()  # while it is held: whoever waits for this file will see that it is gone
        handle.close()


def claim(path: Path) -> IO[str] | None:
    """Acquires the lock at `path` without waiting; the lock file is created where it is missing.

    Returns:
        The open file, which holds the lock until it is closed and is not removed then; None if another process holds
        the lock.

    Raises:
        OSError: the file cannot be created.
    """
    try:
        return _attempt(path, wait=False)
    except BlockingIOError:
        return None


def _taken(path: Path, wait: bool) -> IO[str]:
    while True:
        if handle := _attempt(path, wait):
            return handle


def _attempt(path: Path, wait: bool) -> IO[str] | None:
    """Returns the locked file, open; None if its last holder removed it meanwhile, so that it is no lock any more."""
    handle = path.open("a+")
    try:
        _lock(handle, wait)
        if _is_at(handle, path):
            return handle
    except BaseException:
        handle.close()
        raise
    handle.close()
    return None


def _is_at(handle: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _close_copies() -> None:
    """Closes inherited lock files in a forked process: a lock must not outlive the process that acquired it."""
    for handle in list(_HELD):
        handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


def _lock(handle: IO[str], wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
