"""`mobilezoo report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: what lies in them decides what the page shows.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page: training curves, parity, latency with spread, the search front.

    Examples:

        mobilezoo report runs/digits
        mobilezoo report runs/a runs/b --out compare.html
    """
    from mobilezoo.workflows.report import write_report

    print(write_report(runs, out))
