"""Tables people can read."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; columns that hold mostly numbers are aligned right."""
    console = Console()
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        filled = [row[index] for row in rows if row[index] not in (None, "")]
        numeric = bool(filled) and 2 * sum(map(_is_number, filled)) >= len(filled)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))  # `[onnx]` is text, not markup
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)


def _is_number(cell: object) -> bool:
    text = str(cell).strip().removesuffix("%").replace(",", "").split(" ")[0]
    try:
        float(text)
    except ValueError:
        return False
    return True
