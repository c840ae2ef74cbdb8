"""`mobilezoo list` and `show`."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.cli.list_latency import LatencyFlags, print_csv, print_latencies
from mobilezoo.cli.options import Json, config_completion, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError, printable, writable_place

if TYPE_CHECKING:
    from mobilezoo.workflows.stage_latency import StagePrices


def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'shvit*'.")] = "*",
    parts: Annotated[
        bool, typer.Option("--parts", help="Attention and blocks that stages and search spaces take by name.")
    ] = False,
    as_json: Json = False,
    *,
    of: LatencyFlags,
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
    rows = of.rows(pattern)
    if as_json:
        print_json(rows)
    elif of.as_csv:
        print_csv(rows)
    elif of.device is not None:
        print_latencies(rows, of.device, of.precision)
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
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw it, too: an SVG file.")] = None,
    ops: Annotated[
        Path | None,
        typer.Option("--ops", help="With --picture: times, the output of `profile FILE --ops --json` in a file."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            autocompletion=config_completion("devices"),
            help="Where a phone's time goes: an emulated core such as cortex_a76 counts it stage by stage.",
        ),
    ] = None,
    netron: Annotated[bool, typer.Option("--netron", help="Open an exported file in Netron's viewer.")] = False,
    as_json: Json = False,
) -> None:
    """One network stage by stage: shapes, parameters and MACs; in a table, as a picture, or a file in Netron.

    Examples:

        mobilezoo show mobilenetv2_ca_100
        mobilezoo show my_variant.yaml resolution=160
        mobilezoo show shvit_s1 --picture shvit_s1.svg
        mobilezoo show shvit_s1 --picture shvit_s1.svg --device cortex_a76
        mobilezoo show shvit_s1 --picture shvit_s1.svg --ops ops.json
        mobilezoo show runs/digits/export/mobilenetv2_ca_100.int8.tflite --netron
    """
    if netron:
        if overrides or picture or ops or device or as_json:
            raise MobilezooError("--netron opens an exported file as it is: leave the other options out")
        _netron(Path(model))
        return
    if ops is not None and picture is None:
        raise MobilezooError("--ops gives a picture its times: name the picture with --picture")
    if ops is not None and device is not None:
        raise MobilezooError("--ops and --device both give times: choose one")
    from mobilezoo.workflows.draw_network import draw_network, price_words
    from mobilezoo.workflows.list_models import stage_table
    from mobilezoo.workflows.stage_latency import price_stages

    if picture is not None:
        writable_place(picture, "--picture")  # counting takes a while
    changes = tuple(overrides or ())
    table = stage_table(model, changes)
    prices = None
    if device is not None:
        with shown(as_json) as hooks:
            prices = price_stages(model, changes, table, device, hooks)
    if picture is not None:
        draw_network(table, picture, ops, prices)
    if as_json:
        print_json({**table, **({"latency": prices.model_dump()} if prices else {})})
        return
    print_stages(table, prices)
    if prices is not None:
        print(price_words(prices))
    if picture is not None:
        print(f"picture: {printable(str(picture))}")


def _netron(file: Path) -> None:
    """Serve a file to this machine's browser until Ctrl-C."""
    from mobilezoo.workflows.netron import in_netron

    with in_netron(file) as url:
        print(f"{printable(str(file))}: {url} (Ctrl-C ends it)", flush=True)
        typer.launch(url)
        threading.Event().wait()


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


def print_stages(table: dict[str, Any], prices: "StagePrices | None" = None) -> None:
    title = (
        f"{table['name']} ({table['family']}, {table['resolution']} px): "
        f"{table['params']:,} parameters, {table['macs'] / 1e6:.1f} M MACs"
    )
    rows: list[tuple[object, ...]] = [
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
    columns: tuple[str, ...] = ("stage", "layers", "output", "params", "MACs M", "of MACs")
    if prices is not None:
        columns += (f"{prices.unit} (emulated)", f"of {prices.unit}")
        of = {s.first: (f"{s.value:.3g}", f"{s.share:.1%}") for s in prices.stages}
        shared = {row for s in prices.stages for row in range(s.first + 1, s.last + 1)}
        rows = [(*row, *of.get(i, ('"', '"') if i in shared else ("", ""))) for i, row in enumerate(rows)]
    print_table(title, columns, rows)
