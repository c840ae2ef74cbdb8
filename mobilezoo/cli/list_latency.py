"""Options of `mobilezoo list` that add counted latencies, and what it then prints."""

import csv
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError, UnknownNameError, printable


@dataclass(frozen=True)
class LatencyFlags:
    """What is listed of latencies, and how."""

    device: Annotated[
        str | None, typer.Option("--device", help="Latency on a core of the table: cortex_a76, cortex_a55.")
    ] = None
    precision: Annotated[str, typer.Option("--precision", help="Files of that table: fp32, fp16, int8.")] = "fp32"
    sort: Annotated[
        str | None, typer.Option("--sort", help="latency, top1, macs, params, size or name; default: family and MACs.")
    ] = None
    peers: Annotated[bool, typer.Option("--peers", help="timm's networks of the latency table too.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False

    def rows(self, pattern: str) -> list[dict[str, Any]]:
        """One plain record per network, in the order asked for. Raises MobilezooError."""
        from mobilezoo.workflows.list_latency import in_order, peer_rows, with_latency
        from mobilezoo.workflows.list_models import model_rows

        if self.device is None and self.precision != LatencyFlags.precision:
            raise MobilezooError(f"--precision {self.precision} needs a core of the latency table: --device cortex_a76")
        found = peer_rows(pattern) if self.peers else []
        try:
            found = model_rows(pattern) + found
        except UnknownNameError:
            if not found:  # a pattern may match timm's networks alone
                raise
        if self.device is not None:
            found = with_latency(found, self.device, self.precision)
        return found if self.sort is None else in_order(found, self.sort)


def print_csv(rows: list[dict[str, Any]]) -> None:
    """Rows as CSV on stdout, with the names of the columns."""
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
