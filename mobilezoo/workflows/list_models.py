"""`mobilezoo list` and `mobilezoo show`."""

from typing import Any

from mobilezoo.cli.tables import print_table
from mobilezoo.resolution import written


def model_rows(pattern: str) -> list[dict[str, Any]]:
    """One plain record per zoo model. Raises UnknownNameError where nothing matches."""
    from mobilezoo.config import config_names
    from mobilezoo.errors import UnknownNameError
    from mobilezoo.models.table import read_table

    names = set(config_names("models"))
    rows = [row for row in read_table() if row["name"] in names and _matches(row["name"], pattern)]
    if not rows:
        raise UnknownNameError("model", pattern, names)
    return rows


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
        "licence of weights",
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
            row["licence"],
        )
        for row in rows
    ]
    print_table("top-1 as published by the authors on ImageNet-1k, none measured here", columns, cells)


def stage_table(model: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Totals and one row per stage of a network: output shape, parameters, MACs."""
    from mobilezoo.models import create_model, load_model_config
    from mobilezoo.models.macs import count, count_stages

    config = load_model_config(model, overrides)
    network = create_model(config).eval()
    return {
        "name": config.name,
        "family": config.family,
        "resolution": written(config.resolution),
        **count(network, config.resolution),
        "stages": count_stages(network, config.resolution),
        "config": config.model_dump(mode="json", exclude_none=True),
    }


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


def _matches(name: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatch(name, pattern)
