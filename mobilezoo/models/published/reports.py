"""Lines and progress of what is fetched: on standard error, unless somebody listens."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Listener:
    """Who hears of it."""

    on_message: Callable[[str], None]
    on_progress: Callable[[str, int, int], None]
    """(what, bytes done, bytes in all or 0 where nobody knows)."""


_listener: ContextVar[Listener | None] = ContextVar("weights_listener", default=None)


@contextmanager
def listening(on_message: Callable[[str], None], on_progress: Callable[[str, int, int], None]) -> Iterator[None]:
    """Send messages and progress of what is fetched meanwhile to functions, in place of standard error.

    Args:
        on_message: called with a line worth reading.
        on_progress: called with (what, bytes done, bytes in all or 0 where nobody has counted).
    """
    token = _listener.set(Listener(on_message, on_progress))
    try:
        yield
    finally:
        _listener.reset(token)


def message(text: str) -> None:
    """A line worth reading."""
    listener = _listener.get()
    if listener is None:
        sys.stderr.write(f"{text}\n")
    else:
        listener.on_message(text)


@contextmanager
def progress(what: str, done: int, total: int) -> Iterator[Callable[[int, int], None]]:
    """Count bytes as they come: for the listener, else as a bar where a terminal looks.

    Args:
        what: the name beside the count.
        done: bytes that were there before.
        total: bytes in all; 0 where that is not known.

    Yields:
        A function of (bytes done, bytes in all).
    """
    listener = _listener.get()
    if listener is not None:
        heard = listener.on_progress
        heard(what, done, total)
        yield lambda now, all_: heard(what, now, all_)
        return
    from tqdm import tqdm

    with tqdm(desc=what, initial=done, total=total or None, unit="B", unit_scale=True, disable=None) as bar:

        def tell(now: int, all_: int) -> None:
            bar.total = all_ or None
            bar.update(now - bar.n)

        yield tell


@contextmanager
def hub_is_quiet() -> Iterator[None]:
    """Leave out huggingface_hub's lines about each attempt: the last one's error becomes ours."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def hub_bar(what: str) -> Any:
    """The class of bars that huggingface_hub's download shall use, so that its progress is heard here."""
    from tqdm.auto import tqdm

    listener = _listener.get()

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True if listener else None})
            self.heard = kwargs.get("initial") or 0

        def update(self, n: float | None = 1) -> bool | None:
            self.heard += int(n or 0)
            if listener:
                listener.on_progress(what, self.heard, int(self.total or 0))
            return super().update(n)

    return Bar
