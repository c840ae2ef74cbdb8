"""`mobilezoo latency`: kept results as tables, files and a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilezoo.cli.options import Json, command, group, print_json

app = group("latency", "Kept latencies (list, show, export, import, delete, report) and estimates that rest on them.")

Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="COLUMN=VALUE: kind, device, runtime, model, target, precision or protocol."),
]
MAX_ID = (1 << 31) - 1
"""What a database column of numbers holds."""
SHOWN = ("id", "kind", "device", "target", "precision", "protocol", "median_ms", "p90_ms", "p99_ms")


@command(app, "list")
def list_(where: Where = None, as_json: Json = False) -> None:
    """Kept results, oldest first; an estimate is never shown as if it had been measured.

    Examples:

        mobilezoo latency list
        mobilezoo latency list --where kind=emulated --where model=shvit_s1 --json
    """
    from mobilezoo.cli.tables import print_table
    from mobilezoo_latency import Store
    from mobilezoo_latency.results import list_results

    rows = list_results(Store(), **filters(where))
    if as_json:
        print_json(rows)
        return
    cells = [
        (*(_cut(_short(row[key])) for key in SHOWN), _how(row), _cut(row["noisy"], 300), _cut(row["model"], 300))
        for row in rows
    ]
    columns = (*SHOWN[:6], "median ms", "p90 ms", "p99 ms", "how", "noisy", "model")
    print_table("kept latencies", columns, cells, paths_last=True)  # a model may be the path of its YAML


@command(app)
def show(
    number: Annotated[int, typer.Argument(max=MAX_ID, help="The id in `mobilezoo latency list`.")],
    as_json: Json = False,
) -> None:
    """One result in full: device, protocol, what was asked for and obtained, processes; raw samples with --json.

    Examples:

        mobilezoo latency show 3
        mobilezoo latency show 3 --json
    """
    from mobilezoo_latency import Store
    from mobilezoo_latency.results import show_result

    shown = show_result(Store(), number)
    if as_json:
        print_json(shown)
        return
    from mobilezoo.cli.tables import print_pairs

    print_pairs(f"latency result {number}", list(_plain_rows(shown)))


@command(app)
def delete(
    numbers: Annotated[list[int] | None, typer.Argument(max=MAX_ID, help="Ids in `mobilezoo latency list`.")] = None,
    where: Where = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Rows that are no valid results.")] = False,
) -> None:
    """Delete kept results for good: by id, by column, or the damaged ones.

    Examples:

        mobilezoo latency delete 3 7
        mobilezoo latency delete --where model=shvit_s1 --where kind=browser
        mobilezoo latency delete --damaged
    """
    from mobilezoo.errors import MobilezooError
    from mobilezoo_latency import Store

    if sum(map(bool, (numbers, where, damaged))) != 1:
        raise MobilezooError("delete takes one of: ids, --where COLUMN=VALUE, --damaged")
    store = Store()
    chosen = store.damaged() if damaged else numbers or ()
    print(f"{store.delete(chosen, **filters(where))} results deleted")


@command(app)
def export(
    file: Annotated[Path, typer.Argument(help=".jsonl: whole results with raw samples; .csv: summaries.")],
    where: Where = None,
) -> None:
    """Write kept results to a file; a .jsonl travels to another machine without loss.

    Examples:

        mobilezoo latency export all.jsonl
        mobilezoo latency export phones.csv --where kind=phone
    """
    from mobilezoo_latency import Store
    from mobilezoo_latency.results import export_results

    print(f"{export_results(Store(), file, **filters(where))} results written to {file}")


@command(app, "import")
def import_(file: Annotated[Path, typer.Argument(help="A .jsonl written by `mobilezoo latency export`.")]) -> None:
    """Add another machine's results; what is there already is skipped, a damaged file adds nothing.

    Example:

        mobilezoo latency import all.jsonl
    """
    from mobilezoo_latency import Store
    from mobilezoo_latency.results import import_results

    added, known = import_results(Store(), file)
    print(f"{added} results added, {known} were there already")


@command(app)
def report(
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("latency.html"),
    where: Where = None,
) -> None:
    """One page of kept results: a table and a plot of samples per kind of device.

    Examples:

        mobilezoo latency report
        mobilezoo latency report --where kind=phone --out phones.html
    """
    from mobilezoo.errors import MobilezooError
    from mobilezoo.report import ReportContents, build_report
    from mobilezoo_latency import Store

    reports = [r for _, r in Store().rows(**filters(where))]
    if not reports:
        raise MobilezooError("no kept latency fits: see `mobilezoo latency list`")
    print(build_report(out, ReportContents(title="mobilezoo latency", latencies=reports)))


def filters(where: list[str] | None) -> dict[str, str]:
    """COLUMN=VALUE pairs. Raises MobilezooError for an unknown column."""
    from mobilezoo.errors import MobilezooError
    from mobilezoo_latency.results import COLUMNS

    found = {}
    for item in where or ():
        key, sep, value = item.partition("=")
        if not sep or key not in COLUMNS:
            raise MobilezooError(f"--where {item!r}: expected COLUMN=VALUE with a column out of {', '.join(COLUMNS)}")
        found[key] = value
    return found


def _plain_rows(shown: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, value) of all that is known, groups spelled out; of many samples only their number."""
    for key, value in shown.items():
        name = f"{prefix}{key}".replace("_", " ")
        if key == "samples_ms":
            yield name, f"{len(value)} samples (--json prints them)"
        elif isinstance(value, dict):
            yield from _plain_rows(value, f"{name}: ")
        elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value, 1):
                yield from _plain_rows(item, f"{name} {index}: ")
        elif isinstance(value, list | tuple) and value:
            yield name, "; ".join(map(str, value))
        elif value not in (None, "", [], ()):
            yield name, ("yes" if value else "no") if isinstance(value, bool) else _short(value)


def _cut(text: str, most: int = 80) -> str:
    """A list is for many results: what is longer than a name stands whole in `show`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _how(row: dict[str, Any]) -> str:
    if row["measured"]:
        return f"{row['samples']} samples"
    if row["error_percent"] is None:
        return "counted, no ms"
    return f"estimated, error {row['error_percent']:.1f}%"
