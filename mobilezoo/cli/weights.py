"""`mobilezoo weights`: the files of trained weights that authors published."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mobilezoo.cli.options import Json, Quiet, command, config_completion, group, print_json
from mobilezoo.cli.progress import shown

app = group("weights", "Published weights (list, fetch, verify, path): the authors' own files; none is hosted here.")
HOW = {"https": "download", "hub": "download (hub)", "drive": "Google Drive", "browser": "by hand"}
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...",
        autocompletion=config_completion("models"),
        help="Networks, with or without a tag: shvit_s1, shvit_s1.timm_in1k.",
    ),
]


@command(app, "list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern: 'shvit*', '*.dist_in1k'.")] = "*",
    as_json: Json = False,
) -> None:
    """Every published file: its tag, score, license, and how it can be had; the first of a network is its default.

    Examples:

        mobilezoo weights list
        mobilezoo weights list 'fastvit*' --json
    """
    from mobilezoo.cli.tables import print_table
    from mobilezoo.workflows.weights import weight_rows

    rows = weight_rows(pattern)
    if as_json:
        print_json(rows)
        return
    columns = ("weights", "top-1 %", "pixels", "from", "by", "fetched", "license")
    print_table("published weights", columns, [_cells(row) for row in rows])


@command(app)
def fetch(
    names: Names,
    given: Annotated[
        Path | None, typer.Option("--from", help="A file that you downloaded in a browser, for one network.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fetch files into the cache; each is compared with its pinned SHA-256, or pinned when it comes first.

    Examples:

        mobilezoo weights fetch shvit_s1 ghostnetv3_100.timm_in1k
        mobilezoo weights fetch cas_vit_xs --from ~/Downloads/cas-vit-xs.pth
    """
    from mobilezoo.workflows.weights import fetch_weights

    with shown(quiet) as hooks:
        paths = fetch_weights(names, given=given, force=force, hooks=hooks)
    for path in paths:
        print(path)


@command(app)
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all of the cache.")] = None,
    as_json: Json = False,
) -> None:
    """Whether fetched files are still what was pinned; exit code 1 where one is not.

    Examples:

        mobilezoo weights verify
        mobilezoo weights verify shvit_s1 --json
    """
    from mobilezoo.workflows.weights import verify_weights

    rows = verify_weights(names or ())
    if as_json:
        print_json(rows)
    elif not rows:
        print("nothing is fetched yet")
    for row in () if as_json else rows:
        print(f"ok  {row['name']}  {row['sha256']}" if row["ok"] else f"no  {row['reason']}")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@command(app)
def path(
    name: Annotated[str, typer.Argument(autocompletion=config_completion("models"), help="As in `weights fetch`.")],
) -> None:
    """Where fetched weights lie, once they are compared with their pinned hash.

    Examples:

        mobilezoo weights path shvit_s1
    """
    from mobilezoo.workflows.weights import weights_path

    print(weights_path(name))


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    top1 = "" if row["top1"] is None else f"{row['top1']:.1f}"
    by = {"authors": "authors", "mirror": "mirror", "timm": "timm"}[row["role"]]
    return (row["name"], top1, row["resolution"], HOW[row["access"]], by, "yes" if row["path"] else "", row["license"])
