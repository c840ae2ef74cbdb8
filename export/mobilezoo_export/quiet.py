"""Hide the output of converters (C++ logs, progress bars, version warnings) unless something fails."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(enabled: bool = True) -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to a scratch file for the block's duration.

    An exception passes through; the end of the hidden output (4000 bytes) is attached to it as a note.
    """
    if not enabled:
        yield
        return
    with tempfile.TemporaryFile() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        saved = _redirect(log.fileno())
        try:
            yield
        except BaseException as error:
            _flush()
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            error.add_note(log.read().decode(errors="replace"))
            raise
        finally:
            _restore(saved)
            logging.disable(previous)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _redirect(target: int) -> tuple[int, int]:
    _flush()
    saved = os.dup(1), os.dup(2)
    os.dup2(target, 1)
    os.dup2(target, 2)
    return saved


def _restore(saved: tuple[int, int]) -> None:
    _flush()
    for number, copy in zip((1, 2), saved, strict=True):
        os.dup2(copy, number)
        os.close(copy)
