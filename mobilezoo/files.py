"""Files and folders that appear whole or not at all, whatever ends their writer.

What is written together (a file and its record) is made in a scratch folder beside its place. The rename of that folder
to `.NAME.mz-commit` is the commit point: before it, a dead writer's work is discarded; from it on, whoever comes next
moves the parts to their places. `.NAME.mz-lock` is held meanwhile, so that two writers never mix.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

from mobilezoo.errors import MobilezooError
from mobilezoo.locks import locked
from mobilezoo.scratch import remove_abandoned, scratch_folder

COMMIT, LOCK = ".mz-commit", ".mz-lock"
NEW, OLD = "new", "old"
"""Inside a committed folder: what goes to its place, and folders that were there before."""
ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(ROOM, "free some space and run the same command again"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "name another place (--out), or run in a folder that can be written"
    ),
    errno.ENAMETOOLONG: "choose a shorter name",
}


def atomic_write(path: Path, write: Callable[[Path], None]) -> Path:
    """Writes a file or folder that appears at `path` whole or not at all; returns `path`.

    Args:
        path: the target; a file or folder there is replaced.
        write: creates the file or folder at the temporary path it is given.

    Raises:
        MobilezooError: the folder cannot be written or the disk is full.
    """
    write_together(path, lambda folder: write(folder / path.name))
    return path


def write_together(path: Path, fill: Callable[[Path], None]) -> None:
    """Writes several files beside each other; they appear together or not at all.

    Args:
        path: the main one, whose folder receives all; its lock covers the others.
        fill: writes everything into the empty temporary folder it is given, the main file as `path.name`.

    Raises:
        MobilezooError: the folder cannot be written or the disk is full.
    """
    with _one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        with scratch_folder(path.parent, path.name) as content:
            new = content / NEW
            new.mkdir()
            (content / OLD).mkdir()
            fill(new)
            _give_ordinary_modes(new)
            _flush(new)
            _place(content, path)


def finish(path: Path) -> None:
    """Completes a write of `path` that was committed before its process died. Raises MobilezooError."""
    tidy(path.parent)
    if _committed(path).exists():
        with _one_line(path, "an interrupted write waits to be finished"), locked(_lock(path), wait=True):
            _move_to_places(path)


@contextlib.contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Holds the lock of `path`, so that no writer replaces it; without effect in a folder that cannot be written."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            if path.parent.is_dir():
                held.enter_context(locked(_lock(path), wait=True))
                _move_to_places(path)
        yield


def tidy(folder: Path) -> None:
    """Completes committed writes of dead processes in a folder and removes their scratch; once per process."""
    with contextlib.suppress(OSError):
        _tidy_once(Path(os.path.realpath(folder)))


@lru_cache(maxsize=4096)
def _tidy_once(folder: Path) -> None:
    remove_abandoned(folder)
    names = [entry.name for entry in os.scandir(folder) if entry.name.endswith((COMMIT, LOCK))]
    for name in sorted({name.removesuffix(COMMIT).removesuffix(LOCK)[1:] for name in names}):
        with contextlib.suppress(OSError), locked(_lock(folder / name), wait=False):
            _move_to_places(folder / name)


def _place(content: Path, path: Path) -> None:
    """Moves what was written to its place: a single file by one rename, everything else through the commit point."""
    new = content / NEW
    parts = list(new.iterdir())
    for part in parts:
        _refuse_another_kind(part, path.parent / part.name)
    if len(parts) == 1 and parts[0].is_file() and not _committed(path).exists():
        parts[0].replace(path.parent / parts[0].name)
        return
    with locked(_lock(path), wait=True):
        _move_to_places(path)  # of a writer that died
        content.replace(_committed(path))
        _flush_folder(path.parent)
        _move_to_places(path)


def _move_to_places(path: Path) -> None:
    """Move the parts of a committed write to their places; each step may be repeated. The lock of `path` is held."""
    committed = _committed(path)
    if not committed.exists():
        return
    new, old = committed / NEW, committed / OLD
    for part in sorted(new.iterdir()) if new.is_dir() else []:
        place = path.parent / part.name
        if place.is_dir() and not place.is_symlink():
            if (old / part.name).exists():
                shutil.rmtree(old / part.name)
            place.replace(old / part.name)
        part.replace(place)
    _flush_folder(path.parent)
    shutil.rmtree(committed, ignore_errors=True)


def _refuse_another_kind(part: Path, place: Path) -> None:
    """A folder is never replaced by a file, nor a file by a folder: it is something else than what was meant."""
    if part.is_dir() != place.is_dir() and (place.exists() or place.is_symlink()):
        kind = "folder" if place.is_dir() else "file"
        raise MobilezooError(f"cannot write {str(place)!r}: a {kind} of that name is there: move it away")


def _committed(path: Path) -> Path:
    return path.with_name(f".{path.name}{COMMIT}")


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


def _give_ordinary_modes(made: Path) -> None:
    """Files and folders below as the user's umask has them: what went through `tempfile` is readable by nobody else."""
    ordinary = stat.S_IMODE(made.stat().st_mode)
    for path in made.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            runs = stat.S_ISDIR(mode) or mode & stat.S_IXUSR
            path.chmod(ordinary if runs else ordinary & ~0o111)


def _flush(made: Path) -> None:
    for path in made.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Names reach the disk too. Not every system can do it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _one_line(path: Path, why: str = "nothing was replaced") -> Iterator[None]:
    """Turns errors of the system into a MobilezooError of one line with the remedy."""
    try:
        yield
    except MobilezooError:
        raise
    except Exception as error:  # writers of tensors have errors of their own for a full disk
        found = system_error(error)
        if found is None:
            raise
        raise MobilezooError(f"cannot write {str(path)!r}: {with_remedy(found)}; {why}") from error


def system_error(error: BaseException) -> OSError | None:
    """Extracts the OSError behind an error: itself, its cause, or a full disk named in its text; else None."""
    for seen in (error, error.__cause__):
        if isinstance(seen, OSError) and seen.errno is not None:  # that of a copied folder has none, only a list
            return seen
        for number in ROOM:
            if os.strerror(number) in str(seen):
                return OSError(number, os.strerror(number))
    return error if isinstance(error, OSError) else None


def is_out_of_room(error: BaseException) -> bool:
    """Whether a full disk, or a quota, is behind an error: nothing that is tried next would fare better."""
    found = system_error(error)
    return found is not None and found.errno in ROOM


def with_remedy(error: OSError) -> str:
    """Formats an OSError as one line, with a remedy where `REMEDIES` has one."""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{error.strerror or error}" + (f": {remedy}" if remedy else "")


def through_memory(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Buffers what `save` writes and then writes the file: PyTorch's file writer aborts the process on a full disk.

    Args:
        path: the file.
        save: writes into the binary stream it is given.
    """
    whole = io.BytesIO()
    save(whole)
    path.write_bytes(whole.getbuffer())


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 text atomically and returns its path.

    Args:
        path: the file.
        text: its content.

    Raises:
        MobilezooError: the folder cannot be written or the disk is full.
    """

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return atomic_write(path, write)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents in sorted order."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of the named distributions; absent ones are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
