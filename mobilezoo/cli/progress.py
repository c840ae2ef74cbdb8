"""What the command line shows while work runs: lines and a bar, both on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from mobilezoo.errors import printable
from mobilezoo.workflows.hooks import Hooks


@contextmanager
def shown(quiet: bool = False, *, lines: bool = True) -> Iterator[Hooks]:
    """Hooks that print messages (unless `lines` is false) and warnings, and draw one bar.

    No bar is drawn where `quiet` is true, or no terminal looks.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    off = quiet or not console.is_interactive  # a bar that nobody sees still ends with an empty line
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=off) as bar:
        task = bar.add_task("preparing", total=None)

        def on_message(text: str) -> None:
            if lines:
                on_warning(text)

        def on_warning(text: str) -> None:
            console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

        def on_progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=printable(what), completed=done, total=total or None)

        hooks = Hooks(on_message, on_progress, show_progress=not quiet, on_warning=on_warning)
        with hooks.listening():
            yield hooks
