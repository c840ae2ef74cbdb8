"""What a person sees while a run goes on: a bar per epoch and one line per finished epoch."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_WARNED: set[str] = set()
"""Lines that were printed: a search trains many networks on one damaged folder."""


class EpochBar:
    """Steps, loss, images per second, the share of time spent waiting for data, peak memory, time left in the epoch."""

    def __init__(self, progress: Progress, steps: int, warnings: Console) -> None:
        self._progress, self._warnings = progress, warnings
        self._task = progress.add_task("", total=steps, status="")

    def start(self, epoch: int, epochs: int, done: int = 0) -> None:
        """Reset the bar for an epoch.

        Args:
            epoch: finished epochs, from 0.
            epochs: epochs of the run.
            done: updates of this epoch that a resumed run has already.
        """
        self._progress.reset(self._task, completed=done, description=f"epoch {epoch + 1}/{epochs}", status="")

    def step(self, loss: float, images_per_s: float, wait_share: float, memory_mb: float) -> None:
        """Advance by one update.

        Args:
            loss: mean loss of the update.
            images_per_s: throughput of the epoch so far, over all processes.
            wait_share: share of the epoch's time spent waiting for data, 0 to 1.
            memory_mb: peak memory in megabytes.
        """
        status = f"loss {loss:.3f}  {images_per_s:.0f} images/s  data wait {wait_share:.0%}  {memory_mb / 1e3:.1f} GB"
        self._progress.update(self._task, advance=1, status=status)

    def line(self, text: str) -> None:
        """Print a line above the bar, unless nothing is to be shown."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print what the result may suffer from, also where nothing else is shown; there each line once."""
        if self._warnings is self._progress.console or text not in _WARNED:
            self._warnings.print(text, highlight=False, markup=False, soft_wrap=True)
        _WARNED.add(text)

    def lines(self, texts: Iterable[str], warnings: Iterable[str] = ()) -> None:
        """Print several of both.

        Args:
            texts: as for `line`.
            warnings: as for `warn`.
        """
        for text in texts:
            self.line(text)
        for text in warnings:
            self.warn(text)


@contextmanager
def epoch_bar(steps: int, enabled: bool, *, announce: bool = True) -> Iterator[EpochBar]:
    """A live bar on standard error where it is a terminal, and lines above it.

    Args:
        steps: updates in an epoch.
        enabled: False shows neither bar nor lines, only warnings.
        announce: whether this process prints anything at all; one of a distributed run does.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=not (enabled and announce))
    warnings = console if enabled else Console(stderr=True, quiet=not announce)
    off = not (enabled and console.is_interactive)  # a bar that nobody sees still ends with an empty line
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        yield EpochBar(progress, steps, warnings)
