"""Latency without measuring: the estimate of a table of blocks or of a predictor."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import MobilezooError, existing_path
from mobilezoo.reading import read_json
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.latency_blocks import block_keys

if TYPE_CHECKING:
    from mobilezoo.latency_report import Estimate
    from mobilezoo.search.space import Space


def estimate(model: str, by: Path, space: str | None, device: str | None, hooks: Hooks) -> "Estimate":
    """Latency of a network by a table of blocks or by a predictor.

    Args:
        model: name, YAML, checkpoint or exported file; with a table the name or YAML of a network of the space.
        by: file of the table or predictor.
        space: search config whose space the table covers; needed with a table.
        device: must be the one that `by` was measured on; None does not check.
        hooks: receives the progress of an export.

    Raises:
        MobilezooError: `by` is neither, is of another device, or does not cover the network.
    """
    from mobilezoo_latency import load_device
    from mobilezoo_latency.estimators.predictor import Predictor
    from mobilezoo_latency.estimators.table import load_table

    info = load_device(device).describe() if device else None
    if not is_table(by):
        from mobilezoo.workflows.model_options import NO_OPTIONS
        from mobilezoo.workflows.profile import files_to_time
        from mobilezoo_latency import ProfileConfig

        predictor = Predictor.load(by)
        _same_device(predictor.record.device, info)
        (file,) = files_to_time([model], ProfileConfig(), NO_OPTIONS, hooks)
        return predictor.predict(file)
    if space is None:
        raise MobilezooError(f"{by.name} is a table of blocks: name the search space with --space")
    from mobilezoo.models import load_model_config
    from mobilezoo.search.networks import point_of

    choices = load_space(space)
    point = point_of(choices, load_model_config(model))
    return load_table(by).compose(block_keys(choices, point), info)


def load_space(name: str) -> "Space":
    """The space of a search config. Raises ConfigError, UnknownNameError."""
    from mobilezoo.search.networks import load_search_config

    return load_search_config(name).space


def is_table(path: Path) -> bool:
    """Whether a file is a table of blocks rather than a predictor. Raises MobilezooError for neither."""
    data = read_json(existing_path(path, "table or predictor"))
    return isinstance(data, dict) and "blocks_ms" in data


def _same_device(mine: Any, other: Any) -> None:
    if other is not None and (mine.name, mine.runtime) != (other.name, other.runtime):
        raise MobilezooError(
            f"this predictor is for {mine.name} ({mine.runtime}), not for {other.name} ({other.runtime})"
        )
