"""Callbacks of a workflow. The command line prints lines and draws bars; by default nothing is shown."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def _ignore(*_: object) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Hooks:
    """Functions that a caller passes in to follow a workflow."""

    on_message: Callable[[str], None] = _ignore
    """A line worth reading: what was assumed, left out or finished."""
    on_progress: Callable[[str, int, int], None] = _ignore
    """(what, done, total) of the step under way; total is 0 where it cannot be known."""
    show_progress: bool = False
    """Whether the trainer may draw its bars on standard error."""
    on_warning: Callable[[str], None] = _ignore
    """A line on what the result may suffer from; also shown where messages are not."""

    def listening(self) -> AbstractContextManager[None]:
        """Messages and progress of published weights that are fetched meanwhile come here."""
        from mobilezoo.models.published.reports import listening

        return listening(self.on_message, self.on_progress)

    def on_status(self, what: str) -> None:
        """Report a step of unknown length."""
        self.on_progress(what, 0, 0)

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """The items, with progress reported as they are taken.

        Args:
            items: any iterable.
            what: description of the step.
            total: number of items; 0 where it is unknown.
        """
        self.on_progress(what, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.on_progress(what, done, total)


SILENT = Hooks()
