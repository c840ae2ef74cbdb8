"""One training step: mixup, forward, backward in micro-batches that fit the memory, clipping, optimizer, average."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.loaders import Batch, EvalBatches, TrainBatches
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.models.fits import ONE_IMAGE, is_batch_of_one
from mobilezoo.models.probe import train_heads_only
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, written
from mobilezoo.train.build import Loss
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.weight_sharing import SharedWeights

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
OnMessage = Callable[[str], None]


@dataclass
class TrainState:
    """Everything that a training run holds, on its device."""

    device: torch.device
    resolution: Size
    prep: Preprocessing
    labels: tuple[str, ...]
    network: nn.Module
    forward: Any
    """`network`, compiled or joined with the other processes."""
    optimizer: torch.optim.Optimizer
    schedule: Any
    mixup_fn: Any | None
    loss: Loss
    ema: Any | None
    teacher: nn.Module | None
    scaler: torch.amp.GradScaler
    train_batches: TrainBatches
    val_batches: EvalBatches
    bad_images: torch.Tensor
    images: tuple[int | None, int | None] = (None, None)
    """In the training and the validation split; None for streams, whose length is not known."""
    cache: SmallCopies | None = None
    left_out: tuple[str, ...] = ()
    """Lines on the files of the data that are no images."""
    distributed: Distributed = field(default_factory=Distributed)
    micro_batches: int = 1
    """Micro-batches per batch; doubled when a batch does not fit the memory."""
    quantized: Any | None = None
    """`network` with fake quantization, which is then what learns and what is scored."""


class NotFiniteError(Exception):
    """The loss of a batch is NaN or infinite; holds the batch."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x = x


def train_mode(state: TrainState, config: TrainConfig) -> None:
    """Put the network into train mode: all of it, or the classifier only (`tune` other than all).

    Args:
        state: its network, and its fake-quantized version if there is one, are switched in place.
        config: gives `tune`.
    """
    if state.quantized is not None:
        state.quantized.train()
    if config.tune == "all":
        state.network.train()
    else:
        train_heads_only(state.network)


def eval_model(state: TrainState) -> nn.Module:
    """The weights that a run leaves: the averaged ones where averaging is on."""
    network: nn.Module = state.ema.module if state.ema is not None else state.network
    return network


def train_step(
    state: TrainState, config: TrainConfig, batches: list[Batch], update: int, on_message: OnMessage
) -> float:
    """Learn from the batches of one update: forward, backward, clipping, optimizer, average.

    Args:
        state: changed in place; its micro-batches double where a batch does not fit the memory.
        config: loss scaling, precision and clipping.
        batches: `train.accumulate` batches of (x (B, C, H, W), y (B,)) on the device.
        update: number of the update in the run, from 0.
        on_message: receives a line when the micro-batches double.

    Returns:
        Mean loss over the images.

    Raises:
        NotFiniteError: the loss is NaN or infinite; nothing was applied.
        ConfigError: a batch norm meets a single image.
        MobilezooError: the batch does not fit the memory and may not be split further.
    """
    mixed = [mixup(state, x, y) for x, y in batches]
    while True:
        try:
            loss = _backward(state, config, mixed)
            break
        except ValueError as error:
            if not is_batch_of_one(error):
                raise
            raise ConfigError(ONE_IMAGE.format(config.model)) from None
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            _cut_smaller(state, config, max(len(x) for x, _ in mixed), on_message)
    _apply(state, config, update)
    return loss


def mixup(state: TrainState, x: torch.Tensor, y: torch.Tensor) -> Batch:
    """Mixup or CutMix over a whole batch where configured.

    Args:
        state: gives timm's Mixup, or None.
        x: (B, C, H, W) images; with mixup the last of an odd number is dropped.
        y: (B,) class indices, which mixup turns into (B, K) distributions.
    """
    if state.mixup_fn is None:
        return x, y
    if len(x) % 2:
        x, y = x[:-1], y[:-1]  # timm mixes pairs
    mixed: Batch = state.mixup_fn(x, y)
    return mixed


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Mixed precision for the forward pass.

    Args:
        device: its type selects torch's list of operations.
        amp: `none`, `bf16` or `fp16`.
    """
    return torch.autocast(device.type, dtype=AMP.get(amp, torch.bfloat16), enabled=amp != "none")


def _backward(state: TrainState, config: TrainConfig, batches: list[Batch]) -> float:
    settings = config.train
    images = sum(len(x) for x, _ in batches)
    micro_batches = [part for batch in batches for part in _cut(batch, state.micro_batches)]
    loss_sum = 0.0
    for number, (x, y) in enumerate(micro_batches):
        if settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with _gradients_stay(state, number + 1 < len(micro_batches)), autocast(state.device, settings.amp):
            share = len(x) / images
            for loss in _losses(state, x, y):
                state.scaler.scale(loss * share).backward()
                value = loss.item()  # waits for the device: once per micro-batch, after all of its work is queued
                if not math.isfinite(value):
                    raise NotFiniteError(x)
                loss_sum += value * share
    return loss_sum


def _losses(state: TrainState, x: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
    """The loss of a batch, or one per pass where networks share weights."""
    if isinstance(state.network, SharedWeights):
        yield from state.network.losses(x, lambda logits: _score(state, x, logits, y))
    else:
        yield with_auxiliary(state.quantized or state.network, _score(state, x, state.forward(x), y))


def with_auxiliary(network: Any, loss: torch.Tensor) -> torch.Tensor:
    """Add losses that parts of a network have of their own, such as the balance of its routing.

    Args:
        network: module, wrapped or not, that has just run; any part of it may have an `auxiliary_loss()`, which
            gives a number or None.
        loss: the score.
    """
    for module in network.modules():
        if callable(own := getattr(type(module), "auxiliary_loss", None)) and (value := own(module)) is not None:
            loss = loss + value
    return loss


def _score(state: TrainState, x: torch.Tensor, output: Any, y: torch.Tensor) -> torch.Tensor:
    """The loss of a network's answers, a teacher's share included."""
    logits, taught = output if isinstance(output, tuple) else (output, output)
    loss = state.loss(logits, y)
    return loss if state.teacher is None else loss + state.teacher(x, taught)


def _cut(batch: Batch, micro_batches: int) -> Iterator[Batch]:
    yield from zip(batch[0].chunk(micro_batches), batch[1].chunk(micro_batches), strict=True)


def _gradients_stay(state: TrainState, more_to_come: bool) -> AbstractContextManager[None]:
    """Exchange gradients between processes once per update, with its last micro-batch."""
    if more_to_come and state.distributed.world > 1:
        stay: AbstractContextManager[None] = state.forward.no_sync()
        return stay
    return nullcontext()


def _apply(state: TrainState, config: TrainConfig, update: int) -> None:
    """Clip, step the optimizer and the average, clear the gradients."""
    from timm.utils import dispatch_clip_grad

    optimizer = config.train.optimizer
    state.scaler.unscale_(state.optimizer)
    if optimizer.clip is not None:
        dispatch_clip_grad(state.network.parameters(), value=optimizer.clip, mode=optimizer.clip_mode)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema is not None:
        state.ema.update(state.network, step=update)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _cut_smaller(state: TrainState, config: TrainConfig, batch: int, on_message: OnMessage) -> None:
    """Double the number of micro-batches, or raise MobilezooError.

    The batch statistics then include the micro-batches that did fit a second time.
    """
    remedy = "set a smaller data.batch_size and a larger train.accumulate, or train.checkpoint_activations=true"
    if config.train.on_out_of_memory == "stop" or state.micro_batches >= batch or state.distributed.world > 1:
        raise MobilezooError(
            f"a batch of {batch} images at {written(state.resolution)} px does not fit the memory: {remedy}"
        )
    state.micro_batches *= 2
    state.optimizer.zero_grad()
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    on_message(
        f"a batch of {batch} images does not fit the memory: "
        f"going on with {state.micro_batches} micro-batches, accumulated"
    )
