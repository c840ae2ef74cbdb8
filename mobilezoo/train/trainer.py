"""The training loop: timm's parts in a flat order, resumable after a kill with the same result.

Every epoch seeds its generators from (seed, epoch), so an epoch depends on nothing but the state at its start; the
checkpoint written at its end is therefore all that a resumed run needs to repeat an unbroken one.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Checkpoint, Preprocessing
from mobilezoo.data import eval_loader, open_data, train_loader
from mobilezoo.data.loaders import batches_on
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.models import load_model_config
from mobilezoo.train import build
from mobilezoo.train.checkpoints import RunState, latest_checkpoint, save_checkpoint
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.progress import EpochBar, epoch_bar
from mobilezoo.train.run_folder import RunFolder

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Parts:
    """Everything a run is made of, on its device."""

    device: torch.device
    resolution: int
    prep: Preprocessing
    labels: tuple[str, ...]
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    mixing: Any | None
    loss: build.Loss
    ema: Any | None
    teacher: nn.Module | None
    scaler: torch.amp.GradScaler
    train_batches: Any
    val_batches: Any
    bad_images: torch.Tensor


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Checkpoint:
    """Train to the end (or from the last whole checkpoint on) and return the record of the best weights.

    `on_epoch(epoch, top1)` is called after each epoch is saved; what it raises ends the run and passes through.
    Raises MobilezooError for anything a user can mend; what was saved before stays.
    """
    folder = RunFolder(run_dir)
    parts = assemble(config)
    folder.open(config, resume)
    history: list[dict[str, float]] = []
    with epoch_bar(updates_per_epoch(config, parts), progress) as bar:
        state, damaged = latest_checkpoint(folder.checkpoints) if resume else (None, [])
        for line in damaged:
            bar.line(line)
        if state is not None:
            restore(parts, state)
            history = state.history
            bar.line(f"resuming {run_dir} after epoch {state.epoch}")
            _keep_best(folder, config, parts, history)
        with _tensorboard(folder) as board:
            for epoch in range(len(history), config.train.epochs):
                bar.start(epoch, config.train.epochs)
                row = train_epoch(config, parts, epoch, bar)
                row |= validate(config, parts)
                history.append(row)
                save_checkpoint(folder.checkpoints, snapshot(parts, history), config.train.keep)
                folder.write_history(history)
                _keep_best(folder, config, parts, history)
                for key, value in row.items():
                    board.add_scalar(key, value, epoch + 1)
                bar.line(_summary(row))
                if on_epoch is not None:
                    on_epoch(epoch + 1, row["val_top1"])
    return _best_record(folder)


def assemble(config: TrainConfig) -> Parts:
    """Open the data and build network, optimizer, schedule, losses and loaders. Raises MobilezooError."""
    settings = config.train
    device = build.pick_device(settings.device)
    model_config = load_model_config(config.model)
    prep = model_config.preprocessing()
    resolution = settings.resolution or model_config.resolution
    fit, held_out = open_data(config.data, train=True), open_data(config.data, train=False)
    if fit.labels != held_out.labels:
        odd = sorted(set(fit.labels) ^ set(held_out.labels))
        raise ConfigError(f"training and validation splits have different classes, for example {odd[:3]}")
    classes = len(fit.labels)
    seed_all(settings.seed, 0)
    network = build.build_network(config, classes).to(device)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = build.build_optimizer(network, settings.optimizer, config.data.batch_size * settings.accumulate)
    train_batches = train_loader(config.data, fit, resolution, prep, device)
    mixing = build.build_mixing(config.data, settings, classes)
    teacher = None
    if settings.distill is not None:
        from mobilezoo.train.distill import Teacher

        teacher = Teacher(settings.distill, classes, prep).to(device)
    return Parts(
        device=device,
        resolution=resolution,
        prep=prep,
        labels=fit.labels,
        network=network,
        optimizer=optimizer,
        schedule=build.build_schedule(optimizer, settings, max(1, len(train_batches) // settings.accumulate)),
        mixing=mixing,
        loss=build.build_loss(settings, mixing is not None).to(device),  # type: ignore[attr-defined]
        ema=build.build_ema(network, settings),
        teacher=teacher,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        train_batches=train_batches,
        val_batches=eval_loader(config.data, held_out, resolution, prep, device),
        bad_images=fit.bad_images,
    )


def train_epoch(config: TrainConfig, parts: Parts, epoch: int, bar: EpochBar) -> dict[str, float]:
    """One pass over the training images; returns this epoch's training metrics."""
    settings = config.train
    updates = updates_per_epoch(config, parts)
    seed_all(settings.seed, epoch + 1)
    parts.network.train()
    losses: list[float] = []
    images, waited, started = 0, 0.0, time.perf_counter()
    batches = iter(batches_on(parts.train_batches, parts.device))
    for step in range(updates):
        update = epoch * updates + step
        lr = _set_lr(parts, update)
        step_loss = 0.0
        for _ in range(settings.accumulate):
            asked = time.perf_counter()
            x, y = next(batches)
            waited += time.perf_counter() - asked
            if settings.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            images += len(x)
            loss = _loss(parts, x, y, settings.amp) / settings.accumulate
            if not torch.isfinite(loss):
                raise MobilezooError(_nan_message(parts.network, x, epoch, step, lr))
            parts.scaler.scale(loss).backward()
            step_loss += loss.item()
        _update(parts, config, update)
        losses.append(step_loss)
        elapsed = time.perf_counter() - started
        bar.step(step_loss, images / elapsed, waited / elapsed)
    elapsed = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "train_loss": float(np.mean(losses)),
        "lr": lr,
        "images_per_s": images / elapsed,
        "data_wait_share": waited / elapsed,
        "bad_images": int(parts.bad_images),
    }


def validate(config: TrainConfig, parts: Parts) -> dict[str, float]:
    """Scores of the weights that would be shipped: the averaged ones where averaging is on."""
    network = (parts.ema.module if parts.ema is not None else parts.network).eval()
    with _autocast(parts.device, config.train.amp):
        result = evaluate(network, batches_on(parts.val_batches, parts.device))
    return {"val_loss": result.loss, "val_top1": result.top1, "val_top5": result.top5}


def snapshot(parts: Parts, history: list[dict[str, float]]) -> RunState:
    """The run's state as plain tensors and numbers."""
    return RunState(
        epoch=len(history),
        model=parts.network.state_dict(),
        ema=parts.ema.module.state_dict() if parts.ema is not None else None,
        optimizer=parts.optimizer.state_dict(),
        scaler=parts.scaler.state_dict(),
        history=history,
    )


def restore(parts: Parts, state: RunState) -> None:
    """Put a saved state back into freshly assembled parts."""
    parts.network.load_state_dict(state.model)
    if parts.ema is not None and state.ema is not None:
        parts.ema.module.load_state_dict(state.ema)
    parts.optimizer.load_state_dict(state.optimizer)
    parts.scaler.load_state_dict(state.scaler)


def seed_all(seed: int, epoch: int) -> None:
    """Seed Python's, NumPy's and torch's global generators for one epoch (timm's transforms use all three)."""
    value = seed * 1_000_003 + epoch
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def updates_per_epoch(config: TrainConfig, parts: Parts) -> int:
    """Optimizer steps in one epoch."""
    return max(1, len(parts.train_batches) // config.train.accumulate)


def _loss(parts: Parts, x: torch.Tensor, y: torch.Tensor, amp: str) -> torch.Tensor:
    if parts.mixing is not None:
        if len(x) % 2:
            x, y = x[:-1], y[:-1]  # timm mixes pairs
        x, y = parts.mixing(x, y)
    with _autocast(parts.device, amp):
        logits = parts.network(x)
        loss = parts.loss(logits, y)
        return loss + parts.teacher(x, logits) if parts.teacher is not None else loss


def _update(parts: Parts, config: TrainConfig, update: int) -> None:
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


def _set_lr(parts: Parts, update: int) -> float:
    parts.schedule.step_update(update)
    return float(parts.optimizer.param_groups[0]["lr"])


def _autocast(device: torch.device, amp: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AMP.get(amp, torch.bfloat16), enabled=amp != "none")


def _nan_message(network: nn.Module, x: torch.Tensor, epoch: int, step: int, lr: float) -> str:
    """Where the first non-finite value appears, found by one forward pass with hooks."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in network.named_modules() if not list(m.children())]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    where = f"first in layer {found[0]!r}" if found else "in the loss only"
    return (
        f"loss is not finite at epoch {epoch + 1}, step {step + 1} ({where}, lr {lr:.2g}): "
        "lower train.optimizer.lr, set train.optimizer.clip=1.0, or lengthen the warm-up"
    )


def _keep_best(folder: RunFolder, config: TrainConfig, parts: Parts, history: list[dict[str, float]]) -> None:
    """Save the current weights as the best where the last epoch is the best so far."""
    best = max(history, key=lambda row: (row["val_top1"], -row["val_loss"]))
    if best is not history[-1]:
        return
    network = parts.ema.module if parts.ema is not None else parts.network
    record = {
        "model": config.model,
        "num_classes": len(parts.labels),
        "in_chans": config.model_args.get("in_chans", 3),
        "resolution": parts.resolution,
        "preprocessing": parts.prep,
        "labels": parts.labels,
        "dataset": config.data.source,
        "epoch": int(best["epoch"]),
        "top1": best["val_top1"],
    }
    folder.save_best(network.state_dict(), record)


def _best_record(folder: RunFolder) -> Checkpoint:
    from mobilezoo.artifacts import load_record_of

    return load_record_of(Checkpoint, folder.best)


def _tensorboard(folder: RunFolder) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder.path / "tensorboard")


def _summary(row: dict[str, float]) -> str:
    return (
        f"epoch {int(row['epoch']):3d}  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"top-1 {row['val_top1']:.2f}%  {row['images_per_s']:.0f} images/s"
        + (f"  {int(row['bad_images'])} unreadable images skipped" if row["bad_images"] else "")
    )
