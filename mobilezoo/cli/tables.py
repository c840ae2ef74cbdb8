"""Tables people can read. Whatever a cell holds, it is printed as text: nothing in it steers the terminal.

Paths stand in the last column and are never folded or cut: where a table with them is too wide, each has a line of its
own below, under the number of its row.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mobilezoo.errors import printable

PIPED_WIDTH = 160
"""Columns of a table that goes to a file or another program."""
UNBOUNDED = 1_000_000


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, paths_last: bool = False
) -> None:
    """A table on stdout; columns that hold mostly numbers are aligned right. `paths_last`: the last one holds paths."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    cells = [[_text(cell) for cell in row] for row in rows]
    whole = _table(title, columns, cells)
    unbounded = console.options.update(width=UNBOUNDED)
    if not paths_last or not cells or console.measure(whole, options=unbounded).maximum <= console.width:
        console.print(whole)
        return
    paths = [row[-1] for row in cells]
    numbers = [str(number) for number in range(1, len(cells) + 1)] if len(cells) > 1 else [""]
    numbered = [[number, *row[:-1]] for number, row in zip(numbers, cells, strict=True)]
    console.print(_table(title, ("", *columns[:-1]), numbered))
    for number, path in zip(numbers, paths, strict=True):
        if path:
            print(f"{number or columns[-1]}  {path}")


def print_pairs(title: str, rows: Sequence[tuple[str, object]]) -> None:
    """A line per name and value; long values are left to the terminal to wrap, so that none is cut."""
    print(printable(title))
    named = [(printable(name), value) for name, value in rows]
    width = max((len(name) for name, _ in named), default=0)
    for name, value in named:
        print(f"{name.ljust(width)}  {_text(value)}")


def _table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        filled = [row[index] for row in cells if row[index]]
        numeric = bool(filled) and 2 * sum(map(_is_number, filled)) >= len(filled)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in cells:
        table.add_row(*map(escape, row))  # `[onnx]` is text, not markup
    return table


def _text(cell: object) -> str:
    """A cell on one line, without what would steer a terminal."""
    return "" if cell is None else printable(str(cell))


def _is_number(cell: object) -> bool:
    text = str(cell).strip().removesuffix("%").replace(",", "").split(" ")[0]
    try:
        float(text)
    except ValueError:
        return False
    return True
