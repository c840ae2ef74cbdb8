"""How work tells its caller what it does. The command line prints lines and draws bars; by default nothing is shown."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def _ignore(*_: object) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to hear while a workflow runs."""

    on_message: Callable[[str], None] = _ignore
    """A line worth reading: what was assumed, left out or finished."""
    on_progress: Callable[[str, int, int], None] = _ignore
    """(what, done, total) of the step under way; total is 0 where it cannot be known."""
    show_progress: bool = False
    """Whether the trainer may draw its bars on standard error."""
    on_warning: Callable[[str], None] = _ignore
    """A line on what the result may suffer from; also shown where messages are not."""

    def status(self, what: str) -> None:
        """The step under way, of unknown length."""
        self.on_progress(what, 0, 0)

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """The items, counted as they are taken."""
        self.on_progress(what, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.on_progress(what, done, total)


SILENT = Hooks()
