"""What a person sees while a run goes on: a bar per epoch and one line per finished epoch."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochBar:
    """Steps, loss, images per second, the share of time spent waiting for data, peak memory, time left in the epoch."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=steps, status="")

    def start(self, epoch: int, epochs: int, done: int = 0) -> None:
        self._progress.reset(self._task, completed=done, description=f"epoch {epoch + 1}/{epochs}", status="")

    def step(self, loss: float, images_per_s: float, wait_share: float, memory_mb: float) -> None:
        status = f"loss {loss:.3f}  {images_per_s:.0f} images/s  data wait {wait_share:.0%}  {memory_mb / 1e3:.1f} GB"
        self._progress.update(self._task, advance=1, status=status)

    def line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def epoch_bar(steps: int, enabled: bool) -> Iterator[EpochBar]:
    """A live bar on stderr where a terminal shows it, and lines; silent where `enabled` is False."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=not enabled)
    off = not (enabled and console.is_interactive)  # a bar that nobody sees still ends with an empty line
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        yield EpochBar(progress, steps)
