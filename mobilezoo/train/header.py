"""What the trainer prints before a run begins, and its estimate of the time left."""

import copy
import time

import torch
from torch import nn

from mobilezoo.models.macs import count
from mobilezoo.resolution import Size, written
from mobilezoo.train.assemble import updates_per_epoch
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.resuming import Progress
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.step import TrainState
from mobilezoo.train.weight_sharing import SharedWeights

PRECISIONS = {"none": "float32", "bf16": "bfloat16 mixed", "fp16": "float16 mixed"}


def header(config: TrainConfig, state: TrainState, folder: RunFolder) -> list[str]:
    """Network, data, batch, device, length and folder, a line each.

    Args:
        config: the run.
        state: assembled, before or after resuming.
        folder: named in the last line.
    """
    settings, updates, images = config.train, updates_per_epoch(config, state), [_number(n) for n in state.images]
    sizes = ", ".join(str(written(size)) for size in config.data.augment.sizes or (state.resolution,))
    threads = f", threads: {torch.get_num_threads()}" if state.device.type == "cpu" else ""
    return [
        f"network  {config.model}: {_cost(state.network, state.resolution)}",
        f"data     {config.data.source}: {len(state.labels):,} classes, {images[0]} training and {images[1]} "
        "validation images",
        f"batch    {_batch(config, state)} images of {sizes} px, {updates:,} updates per epoch",
        f"device   {state.device}, {PRECISIONS[settings.amp]}{threads}",
        f"epochs   {settings.epochs}, a checkpoint after each",
        f"folder   {folder.path}",
    ]


def _number(images: int | None) -> str:
    return "an unknown number of" if images is None else f"{images:,}"


def _batch(config: TrainConfig, state: TrainState) -> str:
    """Images per update, and what they are made of where that is not one batch."""
    factors = {
        "": config.data.batch_size,
        " accumulated": config.train.accumulate,
        " processes": state.distributed.world,
    }
    shown = [f"{n:,}{what}" for what, n in factors.items() if not what or n > 1]
    whole = config.data.batch_size * config.train.accumulate * state.distributed.world
    return " x ".join(shown) + (f" = {whole:,}" if len(shown) > 1 else "")


def _cost(network: nn.Module, resolution: Size) -> str:
    """Parameters and multiply-accumulates of one image; those of a supernet differ from pass to pass."""
    params = f"{_amount(sum(p.numel() for p in network.parameters()))} parameters"
    if isinstance(network, SharedWeights):
        return params
    bare = copy.deepcopy(network).cpu()
    for module in bare.modules():
        module.__dict__.pop("forward", None)  # as built: what makes training faster cannot be traced
    try:
        macs = count(bare, resolution)["macs"]
    except Exception as error:  # the tracer meets any network's code; a run does not end for want of a number
        return f"{params} (MACs not counted: {type(error).__name__})"
    return f"{params}, {_amount(macs)} MACs"


def _amount(n: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n)


class RunClock:
    """How long the rest of a run takes, judged by the updates made since it was begun or resumed."""

    def __init__(self, config: TrainConfig, state: TrainState, progress: Progress) -> None:
        self._updates = updates_per_epoch(config, state)
        self._all = config.train.epochs * self._updates
        self._first, self._started = self._made(progress), time.perf_counter()

    def _made(self, progress: Progress) -> int:
        return progress.epoch * self._updates + len(progress.losses)

    def left(self, progress: Progress) -> str:
        """In words; empty at the end."""
        made = self._made(progress)
        if made >= self._all or made <= self._first:
            return ""
        seconds = (time.perf_counter() - self._started) / (made - self._first) * (self._all - made)
        return f"{in_words(seconds)} left"


def in_words(seconds: float) -> str:
    """A duration to two digits or so."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
