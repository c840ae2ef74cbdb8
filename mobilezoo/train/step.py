"""One update: mixing, forward, backward in as many pieces as fit, clipping, the optimizer and the average."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.loaders import Batch, EvalBatches, TrainBatches
from mobilezoo.data.order import Ranks
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.models.fits import ONE_IMAGE, is_batch_of_one
from mobilezoo.models.probe import train_heads_only
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, written
from mobilezoo.train.build import Loss
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.shared import SharedWeights

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
OnMessage = Callable[[str], None]


@dataclass
class Parts:
    """Everything a run is made of, on its device."""

    device: torch.device
    resolution: Size
    prep: Preprocessing
    labels: tuple[str, ...]
    network: nn.Module
    forward: Any
    """`network`, compiled or joined with the other processes."""
    optimizer: torch.optim.Optimizer
    schedule: Any
    mixing: Any | None
    loss: Loss
    ema: Any | None
    teacher: nn.Module | None
    scaler: torch.amp.GradScaler
    train_batches: TrainBatches
    val_batches: EvalBatches
    bad_images: torch.Tensor
    images: tuple[int | None, int | None] = (None, None)
    """In the training and the validation split; None for streams, which do not know."""
    cache: SmallCopies | None = None
    left_out: tuple[str, ...] = ()
    """Lines on the files of the data that are no images."""
    ranks: Ranks = field(default_factory=Ranks)
    pieces: int = 1
    """Into how many parts a batch is cut; grows where one does not fit the memory."""
    quantised: Any | None = None
    """`network` with fake quantisation, which is then what learns and what is scored."""


class NotFiniteError(Exception):
    """The loss of a batch is NaN or infinite; holds the batch."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x = x


def train_mode(parts: Parts, config: TrainConfig) -> None:
    """Everything learns, or the head only."""
    if parts.quantised is not None:
        parts.quantised.train()
    if config.tune == "all":
        parts.network.train()
    else:
        train_heads_only(parts.network)


def shipped(parts: Parts) -> nn.Module:
    """The weights that a run leaves: the averaged ones where averaging is on."""
    network: nn.Module = parts.ema.module if parts.ema is not None else parts.network
    return network


def run_update(parts: Parts, config: TrainConfig, batches: list[Batch], update: int, on_message: OnMessage) -> float:
    """Learn from `train.accumulate` batches; returns their mean loss. A batch that does not fit is cut in halves."""
    mixed = [mix(parts, x, y) for x, y in batches]
    while True:
        try:
            loss = _backward(parts, config, mixed)
            break
        except ValueError as error:
            if not is_batch_of_one(error):
                raise
            raise ConfigError(ONE_IMAGE.format(config.model)) from None
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            _cut_smaller(parts, config, max(len(x) for x, _ in mixed), on_message)
    _apply(parts, config, update)
    return loss


def mix(parts: Parts, x: torch.Tensor, y: torch.Tensor) -> Batch:
    """Mixup or CutMix over a whole batch where configured."""
    if parts.mixing is None:
        return x, y
    if len(x) % 2:
        x, y = x[:-1], y[:-1]  # timm mixes pairs
    mixed: Batch = parts.mixing(x, y)
    return mixed


def autocast(device: torch.device, amp: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AMP.get(amp, torch.bfloat16), enabled=amp != "none")


def _backward(parts: Parts, config: TrainConfig, batches: list[Batch]) -> float:
    settings = config.train
    images = sum(len(x) for x, _ in batches)
    pieces = [piece for batch in batches for piece in _cut(batch, parts.pieces)]
    loss_sum = 0.0
    for number, (x, y) in enumerate(pieces):
        if settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with _gradients_stay(parts, number + 1 < len(pieces)), autocast(parts.device, settings.amp):
            share = len(x) / images
            for loss in _losses(parts, x, y):
                parts.scaler.scale(loss * share).backward()
                value = loss.item()  # waits for the device: once per piece, after all of its work is queued
                if not math.isfinite(value):
                    raise NotFiniteError(x)
                loss_sum += value * share
    return loss_sum


def _losses(parts: Parts, x: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
    """The loss of a batch, or one per pass where networks share weights."""
    if isinstance(parts.network, SharedWeights):
        yield from parts.network.losses(x, lambda logits: _score(parts, x, logits, y))
    else:
        yield _score(parts, x, parts.forward(x), y)


def _score(parts: Parts, x: torch.Tensor, output: Any, y: torch.Tensor) -> torch.Tensor:
    """The loss of a network's answers, a teacher's share included."""
    logits, taught = output if isinstance(output, tuple) else (output, output)
    loss = parts.loss(logits, y)
    return loss if parts.teacher is None else loss + parts.teacher(x, taught)


def _cut(batch: Batch, pieces: int) -> Iterator[Batch]:
    yield from zip(batch[0].chunk(pieces), batch[1].chunk(pieces), strict=True)


def _gradients_stay(parts: Parts, more_to_come: bool) -> AbstractContextManager[None]:
    """Exchange gradients between processes once per update, with its last piece."""
    if more_to_come and parts.ranks.world > 1:
        stay: AbstractContextManager[None] = parts.forward.no_sync()
        return stay
    return nullcontext()


def _apply(parts: Parts, config: TrainConfig, update: int) -> None:
    """Clip, step the optimizer and the average, clear the gradients."""
    from timm.utils import dispatch_clip_grad

    optimizer = config.train.optimizer
    parts.scaler.unscale_(parts.optimizer)
    if optimizer.clip is not None:
        dispatch_clip_grad(parts.network.parameters(), value=optimizer.clip, mode=optimizer.clip_mode)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    parts.optimizer.zero_grad()
    if parts.ema is not None:
        parts.ema.update(parts.network, step=update)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _cut_smaller(parts: Parts, config: TrainConfig, batch: int, on_message: OnMessage) -> None:
    """Double the pieces, or tell the user. Batch statistics have then seen the part that did fit once more."""
    remedy = "set a smaller data.batch_size and a larger train.accumulate, or train.checkpoint_activations=true"
    if config.train.on_out_of_memory == "stop" or parts.pieces >= batch or parts.ranks.world > 1:
        raise MobilezooError(
            f"a batch of {batch} images at {written(parts.resolution)} px does not fit the memory: {remedy}"
        )
    parts.pieces *= 2
    parts.optimizer.zero_grad()
    if parts.device.type == "cuda":
        torch.cuda.empty_cache()
    on_message(
        f"a batch of {batch} images does not fit the memory: going on with {parts.pieces} pieces of it, accumulated"
    )
