"""`mobilezoo data`: look at a dataset before training on it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from mobilezoo.cli.options import Json, Quiet, command, group, print_json

if TYPE_CHECKING:
    from mobilezoo.data.check import DataReport, Entry

app = group("data", "Datasets: find broken files, leaks between splits and uneven classes.")
SHOWN = 10
"""Rows of each kind of finding; --json has all."""


@command(app)
def check(
    source: Annotated[
        str, typer.Argument(help="A folder in ImageNet layout: SPLIT/CLASS/IMAGE; or tar:FOLDER of such archives.")
    ],
    train_split: Annotated[
        str, typer.Option("--train-split", help="The split that tells the classes of all others.")
    ] = "train",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that decode.")] = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode every image once; tell broken files, equal images in two splits, and uneven classes.

    What was read is kept in an index in the folder: the next check reads new and changed files only. Exit code 1 when
    files are broken, shared between splits, a split lacks a class, or training would refuse it.

    Examples:

        mobilezoo data check ~/data/imagenet --workers 8
        mobilezoo data check my_photos --json
        mobilezoo data check tar:/data/imagenet_tars
    """
    from mobilezoo.data.check import check_data

    def track(entries: "Iterable[Entry]", total: int) -> "Iterable[Entry]":
        from rich.console import Console
        from rich.progress import track as bar

        return bar(entries, "reading images", total=total, console=Console(stderr=True), transient=True, disable=quiet)

    report = check_data(source, workers, track, train_split)
    if as_json:
        print_json({**report.model_dump(), "uneven": report.uneven, "clean": report.clean})
    else:
        _print(report)
    if not report.clean:
        raise typer.Exit(1)


def _print(report: "DataReport") -> None:
    from mobilezoo.cli.tables import print_table

    rows = [
        (name, s.images, s.classes, f"{s.smallest} ({s.smallest_class})", f"{s.largest} ({s.largest_class})",
         f"{s.imbalance:.1f}" + (" uneven" if name in report.uneven else ""))
        for name, s in report.splits.items()
    ]  # fmt: skip
    print_table(
        report.root, ("split", "images", "classes", "smallest class", "largest class", "largest / smallest"), rows
    )
    _some("broken files", [f"{name}: {why}" for name, why in report.broken.items()])
    _some("equal images in different splits", [" = ".join(names) for names in report.leaks])
    _some("equal images in one split", [" = ".join(names) for names in report.repeats])
    _some("refused by training or eval", list(report.faults))
    for name, s in report.splits.items():
        _some(f"left out of {name}: no images", [f"{count} {kind}" for kind, count in s.left_out.items()])
    for name, classes in report.missing_classes.items():
        _some(f"classes that {name} lacks", list(classes))
    print(f"{report.read} files read, the others known from an earlier check" + (": all well" if report.clean else ""))


def _some(title: str, lines: list[str]) -> None:
    if lines:
        more = f"\n  … and {len(lines) - SHOWN} more: --json lists them" if len(lines) > SHOWN else ""
        print(f"{title}: {len(lines)}\n  " + "\n  ".join(lines[:SHOWN]) + more)
