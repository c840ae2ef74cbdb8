"""What a run borrows from the packages above this one: fake quantization, and exports while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobilezoo.artifacts import Checkpoint
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError, first_line
from mobilezoo.models import load_model_config
from mobilezoo.models.published.origin import origin_of_start
from mobilezoo.resolution import Size
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.progress import EpochBar
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.step import TrainState, eval_model

NOT_SHAPING = ("in_chans", "num_classes", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "drop_rate",
               "drop_path_rate", "drop_block_rate")  # fmt: skip
"""Arguments that a finished network is rebuilt without, or that its record has elsewhere."""


@dataclass(frozen=True)
class ExportHooks:
    """Functions of the export package, which the trainer must not import; `mobilezoo train` passes them in."""

    fake_quantized: Callable[[nn.Module, torch.Tensor], Any] | None = None
    """(network, example batch) → the module that trains in its place (`train.qat`)."""
    write_int8: Callable[[Any, Checkpoint, Path], tuple[list[str], list[str]]] | None = None
    """(that module at the end, record of the best weights, run folder) → lines on files, and on files that failed."""
    export: Callable[[Path], tuple[dict[str, float], list[str], list[str]]] | None = None
    """Weights file → metrics of its exported files, and the same lines (`train.export_every`)."""


def record_of(config: TrainConfig, state: TrainState, row: dict[str, float]) -> dict[str, Any]:
    """Fields of the Checkpoint record for the weights of an epoch.

    Args:
        config: the run.
        state: gives classes, input size and preprocessing.
        row: metrics of the epoch, with `epoch` and `val_top1`.
    """
    return {
        "model": config.model,
        "num_classes": len(state.labels),
        "in_chans": config.in_chans,
        "resolution": state.resolution,
        "preprocessing": state.prep,
        "labels": state.labels,
        "data": config.data.located().model_dump(mode="json"),
        "epoch": int(row["epoch"]),
        "origin": origin_of_start(load_model_config(config.model), config.pretrained, config.checkpoint),
        "top1": row["val_top1"],
        "probe_queries": config.probe_queries if config.tune == "probe" else 0,
        "model_args": {k: v for k, v in config.model_args.items() if k not in NOT_SHAPING},
    }


def export_if_due(
    folder: RunFolder,
    config: TrainConfig,
    state: TrainState,
    row: dict[str, float],
    bar: EpochBar,
    export_hooks: ExportHooks,
) -> dict[str, float]:
    """Export and score the epoch's weights where `train.export_every` divides it; a failure does not end the run.

    Args:
        folder: the files go to `export/epoch-NNNN` below it.
        config: when, to which targets and precisions.
        state: its averaged weights are exported, or the trained ones without averaging.
        row: metrics of the epoch so far.
        bar: shows one line per file or failure.
        export_hooks: without `export` nothing is done.

    Returns:
        Metrics of the files; empty where nothing was due or the export failed.
    """
    every, epoch = config.train.export_every, int(row["epoch"])
    if every is None or export_hooks.export is None or epoch % every:
        return {}
    weights = folder.path / "export" / f"epoch-{epoch:04d}" / "weights.safetensors"
    try:
        folder.save_weights(weights, eval_model(state).state_dict(), record_of(config, state, row))
        metrics, lines, failures = export_hooks.export(weights)
    except Exception as error:  # converters raise whatever they raise, and hours of training must not end with it
        metrics, lines, failures = {}, [], [f"export after epoch {epoch} failed: {first_line(error)}"]
    bar.lines(lines, failures)
    return metrics


def fake_quantized(
    network: nn.Module,
    config: TrainConfig,
    resolution: Size,
    device: torch.device,
    distributed: Distributed,
    hooks: ExportHooks,
) -> Any:
    """The network with fake quantization, which is then trained in its place.

    Args:
        network: float network on `device`.
        config: gives the input channels.
        resolution: (height, width) that the graph is captured at.
        device: where the network is.
        distributed: must be one process.
        hooks: supplies the quantization.

    Raises:
        ConfigError: no export package, several processes, or `tune` other than all.
    """
    if hooks.fake_quantized is None:
        raise ConfigError("train.qat=true needs the export package: start with `mobilezoo train`")
    if distributed.world > 1 or config.tune != "all":
        raise ConfigError("train.qat=true trains the whole network in one process: leave torchrun and tune out")
    return hooks.fake_quantized(network, torch.zeros(2, config.in_chans, *resolution, device=device))
