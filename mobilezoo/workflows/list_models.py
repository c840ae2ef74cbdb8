"""`mobilezoo list` and `mobilezoo show`."""

import logging
from typing import Any

from mobilezoo.resolution import written

log = logging.getLogger("mobilezoo")


def model_rows(pattern: str) -> list[dict[str, Any]]:
    """One plain record per zoo model; those of plugins are built and counted. Raises UnknownNameError for no match."""
    from mobilezoo.config import config_names
    from mobilezoo.errors import UnknownNameError
    from mobilezoo.models.table import read_table

    names, table = set(config_names("models")), read_table()
    rows = [row for row in table if row["name"] in names and _matches(row["name"], pattern)]
    rows += _measured(sorted(name for name in names - {row["name"] for row in table} if _matches(name, pattern)))
    if not rows:
        raise UnknownNameError("model", pattern, names)
    return rows


def stage_table(model: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Totals and one row per stage of a network: output shape, parameters, MACs.

    Args:
        model: name, YAML or `timm:NAME`.
        overrides: dotted `KEY=VALUE` changes of its config.
    """
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


def _measured(names: list[str]) -> list[dict[str, Any]]:
    """Rows of models outside the table; one that cannot be built is logged and left out."""
    from mobilezoo.errors import MobilezooError

    rows = []
    for name in names:
        from mobilezoo.models.table import measure  # torch, which a list of the table alone does not need

        try:
            rows.append(measure(name))
        except MobilezooError as error:
            log.warning("%s is left out: %s", name, error)
    return rows


def _matches(name: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatch(name, pattern)
