"""Where the milliseconds of a network go, operator by operator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import MobilezooError
from mobilezoo.files import write_text
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.profile import files_to_time, load_profile_config

if TYPE_CHECKING:
    from mobilezoo_export.records import OperatorProfile
    from mobilezoo_latency import ProfileConfig

BAR = 40
SHOWN = 20
"""Single operators printed; `--json` holds all of them."""


def profile_operators(
    models: Sequence[str],
    config: "ProfileConfig | None" = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    plot: Path | None = None,
    hooks: Hooks = SILENT,
) -> "dict[str, OperatorProfile]":
    """Per-operator times by file.

    Args:
        models: exported files, names, YAMLs or checkpoints.
        config: threads and formats, and a device that is this machine; None takes configs/profile/default.yaml.
        options: changes to the networks that are exported.
        plot: SVG file for a picture of one file's times; None draws none.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: the device is not this machine, or `plot` is given for several files.
    """
    from mobilezoo.report.flamegraph import flame
    from mobilezoo_latency import operators

    config = config or load_profile_config()
    if not config.device.startswith("host"):
        raise MobilezooError(f"--ops measures on this machine only, not on {config.device!r}: leave --device out")
    files = files_to_time(models, config, options, hooks)
    if plot is not None and len(files) != 1:
        raise MobilezooError(f"--plot draws one file, got {len(files)}")
    alike = len({file.name for file in files}) < len(files)
    found = {
        str(file) if alike else file.name: operators.profile_operators(file, config.threads or 1) for file in files
    }
    if plot is not None:
        write_text(plot, flame(*next(iter(found.items()))))
    return found


def operators_dict(found: "dict[str, OperatorProfile]") -> list[dict[str, Any]]:
    """Plain data, as `--json` prints it."""
    return [
        {"file": name, **p._asdict(), "sum_ms": p.sum_ms, "operators": [op._asdict() for op in p.operators]}
        for name, p in found.items()
    ]
