"""Latency of files, on any device; networks are exported first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import ExportError, MobilezooError, existing_path
from mobilezoo.latency_report import LatencyReport
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import file_to_time

if TYPE_CHECKING:
    from mobilezoo_latency import Comparison, ProfileConfig

EXPORTS = Path("runs/profile")
SEED = 0
"""Of fresh weights: the same name gives the same file, so that a kept latency is found again."""


def load_profile_config(name: str = "default", overrides: tuple[str, ...] = ()) -> "ProfileConfig":
    """A profile config.

    Args:
        name: path of a YAML, or a bare name in configs/profile/.
        overrides: dotted `KEY=VALUE` changes; `device.KEY=VALUE` changes the device's own YAML.

    Raises:
        ConfigError: a value is not valid, or a key is unknown.
        UnknownNameError: there is no such config.
    """
    from mobilezoo.config import find_config, load_record
    from mobilezoo_latency import ProfileConfig

    of_device = tuple(item.removeprefix("device.") for item in overrides if item.startswith("device."))
    others = [item for item in overrides if not item.startswith("device.")]
    config = load_record(ProfileConfig, find_config("profile", name), others)
    return config.model_copy(update={"device_overrides": (*config.device_overrides, *of_device)})


def profile(
    models: Sequence[str],
    config: "ProfileConfig | None" = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    hooks: Hooks = SILENT,
) -> list[LatencyReport]:
    """Latency of every file; names and checkpoints are exported first.

    Args:
        models: exported files, names, YAMLs or checkpoints.
        config: device, protocol and formats; None takes configs/profile/default.yaml.
        options: changes to the networks that are exported.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: a device, file or export fails.
    """
    from mobilezoo_latency import load_device, load_protocol
    from mobilezoo_latency import profile as measure

    config = config or load_profile_config()
    device = load_device(config.device, config.device_overrides)
    protocol = load_protocol(config.tier, threads=config.threads)
    files = files_to_time(models, config, options, hooks)
    try:
        return [
            measure(
                file,
                device,
                protocol,
                reuse="quiet" if config.use_cache else "none",
                allow_folded=config.allow_folded,
            )
            for file in hooks.track(files, "measuring", len(files))
        ]
    finally:
        device.close()


def compare(
    models: Sequence[str],
    config: "ProfileConfig | None" = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    hooks: Hooks = SILENT,
) -> "Comparison":
    """Time two networks in turns and return the ratio of their latencies with its interval.

    Args:
        models: two exported files, names, YAMLs or checkpoints.
        config: device, protocol and one format; None takes configs/profile/default.yaml.
        options: changes to the networks that are exported.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: there are not two files, or a device or export fails.
    """
    from mobilezoo_latency import compare as in_turns
    from mobilezoo_latency import load_device, load_protocol

    config = config or load_profile_config()
    if len(models) != 2:
        raise MobilezooError(f"--compare takes two files, got {len(models)}")
    files = files_to_time(models, config, options, hooks)
    if len(files) != 2:
        raise MobilezooError(f"--compare takes one format for both, got --to {','.join(config.targets)}")
    protocol = load_protocol(config.tier, threads=config.threads)
    device = load_device(config.device, config.device_overrides)
    return in_turns(files[0], files[1], device, protocol, allow_folded=config.allow_folded)


def files_to_time(
    models: Sequence[str], config: "ProfileConfig", options: ModelOptions, hooks: Hooks = SILENT
) -> list[Path]:
    """Exported files as they are; anything else exported to each target and precision of the config.

    Args:
        models: exported files, names, YAMLs or checkpoints.
        config: gives the targets and precisions.
        options: changes to the networks; refused for files.
        hooks: receives messages and progress.

    Raises:
        ExportError: an export fails.
    """
    return [file for model in models for file in _files_of(model, config, options, hooks)]


def _files_of(model: str, config: "ProfileConfig", options: ModelOptions, hooks: Hooks) -> list[Path]:
    from mobilezoo_export.registry import is_exported

    if is_exported(model):
        return [file_to_time(existing_path(model, "file"), options, EXPORTS)]
    import torch

    from mobilezoo.workflows.export import export
    from mobilezoo_export import ExportConfig

    torch.manual_seed(SEED)
    wanted = ExportConfig(targets=config.targets, precisions=config.precisions, overwrite=True, scored_images=0)
    results = export(model, wanted, options, out=EXPORTS, hooks=hooks)
    for result in results:
        if not result.ok:
            raise ExportError(f"{model}: {result.target} {result.precision} {result.status}: {result.reason}")
    return [Path(r.path) for r in results if r.path]


def report_dict(report: LatencyReport) -> dict[str, Any]:
    """The record with its summary, as `--json` prints it; the summary is null for counts without calibration."""
    from mobilezoo_latency import summarize

    known = report.samples_ms or report.estimate
    return {**report.model_dump(), "summary": summarize(report) if known else None}
