"""Scratch folders with a lock that shows whether their writer lives; the next command removes those of dead writers.

`.NAME.HOST.RANDOM.mz-part/` holds `lock`, held as long as the writer runs, and `content/`, which the writer fills.
"""

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mobilezoo.locks import claim

SUFFIX = ".mz-part"
LOCK = "lock"
CONTENT = "content"
FOREIGN_S = 24 * 3600.0
"""Not every network file system shares its locks: another machine's scratch must also be this old to be removed."""
ATTEMPTS = 20


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Creates an empty folder and removes it with its content at the end of the `with` block.

    Args:
        parent: existing folder that it is created in.
        name: part of its name.

    Raises:
        OSError: it cannot be created.
    """
    outer, lock = _claimed(parent, name)
    try:
        content = outer / CONTENT
        content.mkdir()
        yield content
    finally:
        lock.close()
        shutil.rmtree(outer, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Creates a scratch folder in the system's folder of temporary files (TMPDIR). Raises OSError."""
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent)
    with scratch_folder(parent, f"mobilezoo-{name}") as folder:
        yield folder


def remove_abandoned(parent: Path) -> None:
    """Deletes the scratch folders in `parent` whose writers are dead; those of running writers stay."""
    with contextlib.suppress(OSError):
        for left in [Path(entry.path) for entry in os.scandir(parent) if entry.name.endswith(SUFFIX)]:
            _remove_if_abandoned(left)


def _claimed(parent: Path, name: str) -> tuple[Path, IO[str]]:
    """Creates a scratch folder and its lock; repeated if another process removed the folder before it was locked."""
    for _ in range(ATTEMPTS):
        outer = Path(tempfile.mkdtemp(prefix=f".{name}.{_host()}.", suffix=SUFFIX, dir=parent))
        try:
            lock = claim(outer / LOCK)
        except FileNotFoundError:
            continue
        except BaseException:
            shutil.rmtree(outer, ignore_errors=True)
            raise
        if lock is not None:
            return outer, lock
    raise OSError(f"scratch folders of {name!r} are removed by another process as fast as they are made")


def _remove_if_abandoned(outer: Path) -> None:
    if f".{_host()}." not in outer.name and time.time() - _changed(outer) < FOREIGN_S:
        return
    with contextlib.suppress(OSError):
        lock = claim(outer / LOCK)
        if lock is not None:
            with lock:
                shutil.rmtree(outer, ignore_errors=True)


def _changed(folder: Path) -> float:
    """Returns the time of the last change in a folder, in seconds since the epoch."""
    times = [0.0]
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):  # it may be gone by now
            times.append(path.lstat().st_mtime)
    return max(times)


def _host() -> str:
    return platform.node() or "host"
