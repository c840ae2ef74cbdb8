"""`mobilezoo list` and `mobilezoo show`."""

from typing import Any

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


def _matches(name: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatch(name, pattern)
