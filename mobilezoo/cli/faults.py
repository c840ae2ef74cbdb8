"""What ends a command besides its own errors: a full disk, a read-only folder, a closed pipe, Ctrl-C. One line each."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from mobilezoo.errors import MobilezooError

ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 141
"""128 + SIGPIPE, which Windows does not name: what a shell reports of a program whose reader went away."""


class OutputError(MobilezooError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}")
        self.reader_gone = error.errno == errno.EPIPE
        self.exit_code = PIPE_CLOSED if self.reader_gone else 2


class _Outlet:
    """Standard output whose failures are told from those of any other file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise OutputError(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(error) from None


@contextlib.contextmanager
def outlet() -> Iterator[None]:
    """Write standard output to its end or raise OutputError; no character ends a command (LANG=C writes escapes)."""
    before = sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test or a notebook has put its own
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, _Outlet(before))
    try:
        yield
        sys.stdout.flush()
    except OutputError:
        _forget(before)
        raise
    finally:
        sys.stdout = before


def _forget(stream: TextIO) -> None:
    """Let what cannot be written go, or the interpreter would complain of it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def explain(error: OSError) -> str | None:
    """A failed write in one line with its remedy; None for anything else, which is shown as it is."""
    what = repr(str(error.filename)) if error.filename else "a file"
    if error.errno in ROOM:
        return f"{what}: {error.strerror}: free some space and run the same command again; what was saved is whole"
    if error.errno in CLOSED:
        return f"{what}: {error.strerror}: name another place (--out), or run in a folder that can be written"
    return None
