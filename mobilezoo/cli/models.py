"""`mobilezoo list` and `show`."""

from typing import Annotated, Any

import typer

from mobilezoo.cli.options import Json, config_completion, print_json
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import printable


def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'shvit*'.")] = "*",
    parts: Annotated[
        bool, typer.Option("--parts", help="Attention and blocks that stages and search spaces take by name.")
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="Latency on a core of the table: cortex_a76, cortex_a55.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="Files of that table: fp32, fp16, int8.")] = "fp32",
    sort: Annotated[
        str | None, typer.Option("--sort", help="latency, top1, macs, params, size or name; default: family and MACs.")
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="timm's networks of the latency table too.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Json = False,
) -> None:
    """The zoo: parameters, MACs, resolution, published top-1 with its source, license of the official weights.

    With --device also latency with its error, and the file's size: estimated on emulated cores, never timed.

    Examples:

        mobilezoo list
        mobilezoo list 'mnasnet*' --json
        mobilezoo list --parts
        mobilezoo list --device cortex_a76 --precision int8 --sort latency
    """
    if parts:
        from mobilezoo.workflows.list_parts import part_rows

        found = part_rows(pattern)
        print_json(found) if as_json else print_parts(found)
        return
    from mobilezoo.workflows.list_latency import in_order, peer_rows, with_latency
    from mobilezoo.workflows.list_models import model_rows

    of_peers = peer_rows(pattern) if peers else []
    rows = of_peers if of_peers and pattern.startswith("timm:") else model_rows(pattern) + of_peers
    if device is not None:
        rows = with_latency(rows, device, precision)
    if sort is not None:
        rows = in_order(rows, sort)
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    elif device is not None:
        print_latencies(rows, device, precision)
    else:
        print_models(rows)


def show(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("models"),
            help="A zoo name, an official alias, or the path of a model YAML.",
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes such as resolution=192.")] = None,
    as_json: Json = False,
) -> None:
    """One network stage by stage: shapes, parameters and MACs.

    Examples:

        mobilezoo show mobilenetv2_ca_100
        mobilezoo show my_variant.yaml resolution=160
    """
    from mobilezoo.workflows.list_models import stage_table

    table = stage_table(model, tuple(overrides or ()))
    print_json(table) if as_json else print_stages(table)


def print_csv(rows: list[dict[str, Any]]) -> None:
    """Rows as CSV on stdout, with the names of the columns."""
    import csv
    import sys

    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_latencies(rows: list[dict[str, Any]], device: str, precision: str) -> None:
    """Latency beside published accuracy; networks without a number are counted in a line below."""
    from mobilezoo.models.latency_table import read_latencies
    from mobilezoo.workflows.list_latency import NOT_COUNTED

    table = read_latencies()
    counted = [row for row in rows if row["latency_ms"] is not None]
    columns = (
        "model",
        "estimated ms",
        "10th-90th",
        "top-1 %",
        "distilled %",
        "params M",
        "MACs M",
        "file MB",
        "pixels",
    )
    cells = [
        (
            row["name"],
            f"{row['latency_ms']:.2f}",
            f"{row['low_ms']:.2f}-{row['high_ms']:.2f}",
            row["top1"],
            row["top1_distilled"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['macs'] / 1e6:.0f}",
            f"{row['size_bytes'] / 1e6:.2f}",
            row["resolution"],
        )
        for row in counted
    ]
    error = table.error_of(device, precision)
    if counted:
        title = f"{device}, {precision}: emulated, not timed; error {error}; top-1 as published (float weights)"
        print_table(title, columns, cells)
    waiting = sum(row["latency_reason"] == NOT_COUNTED for row in rows)
    if waiting:
        where = f"on {device} in {precision}"
        print(f"{waiting} of {len(rows)} networks are not counted {where} yet: benchmarks/zoo_latency.py")
    for row in rows:
        if row["latency_reason"] not in ("", NOT_COUNTED):
            print(f"without a number: {row['name']}: {printable(row['latency_reason'])}")
    print(f"estimates and their error rest on: {table.cores[device].basis}")


def print_models(rows: list[dict[str, Any]]) -> None:
    columns = (
        "model",
        "family",
        "params M",
        "MACs M",
        "pixels",
        "top-1 %",
        "distilled %",
        "epochs",
        "source",
        "license of weights",
    )
    cells = [
        (
            row["name"],
            row["family"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['macs'] / 1e6:.0f}",
            row["resolution"],
            row["top1"],
            row["top1_distilled"],
            row["epochs"],
            row["source"],
            row["license"],
        )
        for row in rows
    ]
    print_table("top-1 as published by the authors on ImageNet-1k, none measured here", columns, cells)


def print_parts(rows: list[dict[str, Any]]) -> None:
    columns = ("key", "name", "description", "source")
    title = "parts of a stage, in model YAMLs of family mbconv and in search spaces"
    print_table(title, columns, [[row[column] for column in columns] for row in rows])


def print_stages(table: dict[str, Any]) -> None:
    title = (
        f"{table['name']} ({table['family']}, {table['resolution']} px): "
        f"{table['params']:,} parameters, {table['macs'] / 1e6:.1f} M MACs"
    )
    rows = [
        (
            s["stage"],
            s["layers"],
            "×".join(str(n) for n in s["output"]),
            f"{s['params']:,}",
            f"{s['macs'] / 1e6:.2f}",
            f"{100 * s['macs'] / table['macs']:.1f}%",
        )
        for s in table["stages"]
    ]
    print_table(title, ("stage", "layers", "output", "params", "MACs M", "of MACs"), rows)
