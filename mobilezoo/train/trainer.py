"""The training loop: timm's parts in a flat order, resumable after a kill at any moment with the same result.

The batches of an epoch follow from (seed, epoch), and the generators are seeded before every update from (seed,
update, process). So the weights, the optimizer, the average and the position are all that a resumed run needs to
repeat an unbroken one, bit for bit where the kernels are deterministic (as they are on CPU).
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mobilezoo.artifacts import Checkpoint
from mobilezoo.data import ImageData, eval_loader, open_data, train_loader
from mobilezoo.data.classes import require_same_classes
from mobilezoo.data.loaders import Batch
from mobilezoo.data.order import Ranks
from mobilezoo.errors import ConfigError, DataError, MobilezooError, RunStoppedError
from mobilezoo.models import load_model_config
from mobilezoo.models.fits import check_batch_of_one, check_input
from mobilezoo.models.probe import freeze_all_but_head
from mobilezoo.train import build
from mobilezoo.train.boards import Boards
from mobilezoo.train.checkpoints import RunState, latest_checkpoint, save_checkpoint
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.diagnose import nan_message
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.hardware import fast_forward, memory_mb
from mobilezoo.train.progress import EpochBar, epoch_bar
from mobilezoo.train.ranks import StopRequest, device_of, joined, require_same_data, stop_on_sigterm, total
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.shared import SharedWeights, check_shared
from mobilezoo.train.step import NotFiniteError, Parts, autocast, run_update, shipped, train_mode
from mobilezoo.train.tools import Tools, export_if_due, fake_quantised, record_of


@dataclass
class Position:
    """Where a run stands: finished epochs with their metrics, and the losses of the updates since."""

    history: list[dict[str, float]]
    losses: list[float]

    @property
    def epoch(self) -> int:
        return len(self.history)


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[int, float], None] | None = None,
    tools: Tools | None = None,
) -> Checkpoint:
    """Train to the end (or from the last whole checkpoint on) and return the record of the best weights.

    Under torchrun every process calls this; the first one writes. `on_epoch(epoch, top1)` is called after each epoch
    is saved; what it raises ends the run and passes through. Raises MobilezooError for anything a user can mend and
    RunStoppedError after SIGTERM; what was saved before stays.
    """
    with joined(config.train.device) as ranks, stop_on_sigterm() as stop:
        folder = RunFolder(run_dir)
        tools = tools or Tools()
        parts = assemble(config, ranks, tools)
        if ranks.rank == 0:
            folder.open(config, resume)
            folder.keep_classes(parts.labels)
        with epoch_bar(updates_per_epoch(config, parts), progress and ranks.rank == 0) as bar:
            for line in parts.left_out:
                bar.line(line)
            at = _start(folder, config, parts, resume, bar)
            with Boards(run_dir, config, ranks) as boards:
                while at.epoch < config.train.epochs:
                    bar.start(at.epoch, config.train.epochs, len(at.losses))
                    row = train_epoch(config, parts, at, folder, bar, stop)
                    row |= validate(config, parts, lambda: _stop_if_asked(folder, config, parts, at, stop))
                    if ranks.rank == 0:
                        row |= export_if_due(folder, config, parts, row, bar, tools)
                    at.history.append(row)
                    at.losses.clear()
                    if ranks.rank == 0:
                        _end_epoch(folder, config, parts, at, boards)
                    bar.line(_summary(row))
                    if parts.cache is not None and at.epoch == 1:
                        images, size = parts.cache.size()
                        bar.line(f"{images} small copies in {parts.cache.folder}: {size / 1e6:.0f} MB")
                    if on_epoch is not None:
                        on_epoch(at.epoch, row["val_top1"])
            if parts.quantised is not None and tools.write_int8 is not None:
                for line in tools.write_int8(parts.quantised, _best_record(folder), folder.path):
                    bar.line(line)
            total([0.0], parts.device, ranks)  # nobody reads the record before the first process has written it
        return _best_record(folder)


def assemble(config: TrainConfig, ranks: Ranks | None = None, tools: Tools | None = None) -> Parts:
    """Open the data and build network, optimizer, schedule, losses and loaders. Raises MobilezooError."""
    ranks = ranks or Ranks()
    settings = config.train
    device = build.pick_device(device_of(settings.device, ranks))
    model_config = load_model_config(config.model)
    prep = model_config.preprocessing(config.in_chans)
    resolution = settings.resolution or model_config.resolution
    fit, held_out = open_data(config.data, train=True), open_data(config.data, train=False)
    _check_data(config, fit, held_out, device, ranks)
    classes = len(fit.labels)
    seed_all(settings.seed, 0)
    network = build.build_network(config, classes)
    if not isinstance(network, SharedWeights):
        check_input(network, config.model, (config.in_chans, *resolution))
        if config.data.batch_size == 1 and config.tune == "all" and not (settings.sync_bn and ranks.world > 1):
            for size in config.data.augment.sizes or (resolution,):
                check_batch_of_one(network, config.model, (config.in_chans, *size))
    network = network.to(device)
    check_shared(network, config, ranks)
    if config.tune != "all":
        freeze_all_but_head(network)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    global_batch = config.data.batch_size * settings.accumulate * ranks.world
    optimizer = build.build_optimizer(network, settings.optimizer, global_batch)
    train_batches = train_loader(config.data, fit, resolution, prep, device, settings.seed, ranks)
    mixing = build.build_mixing(config.data, settings, classes)
    teacher = None
    if settings.distill is not None:
        from mobilezoo.train.distill import Teacher

        teacher = Teacher(settings.distill, classes, prep).to(device)
    quantised = fake_quantised(network, config, resolution, device, ranks, tools or Tools()) if settings.qat else None
    return Parts(
        device=device,
        resolution=resolution,
        prep=prep,
        labels=fit.labels,
        network=network,
        forward=quantised or fast_forward(network, config, device, resolution, ranks),
        optimizer=optimizer,
        schedule=build.build_schedule(optimizer, settings, max(1, len(train_batches) // settings.accumulate)),
        mixing=mixing,
        loss=build.build_loss(settings, mixing is not None).to(device),  # type: ignore[attr-defined]
        ema=build.build_ema(network, settings),
        teacher=teacher,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        train_batches=train_batches,
        val_batches=eval_loader(config.data, held_out, resolution, prep, device, ranks),
        bad_images=fit.bad_images,
        cache=fit.cache,
        left_out=tuple(line for line in (fit.left_out, held_out.left_out) if line),
        quantised=quantised,
        ranks=ranks,
    )


def _check_data(config: TrainConfig, fit: ImageData, held_out: ImageData, device: torch.device, ranks: Ranks) -> None:
    """Raise MobilezooError where the splits, or the processes, do not see the same classes and enough images."""
    require_same_classes(fit.labels, held_out.labels, "training", "validation", "give both splits the same classes")
    sizes = [_size(fit), _size(held_out)]
    require_same_data(fit.labels, sizes, device, ranks)
    if sizes[1] is not None and sizes[1] < ranks.world:
        raise DataError(f"{sizes[1]} validation images are too few for {ranks.world} processes: one each is needed")
    accumulate, batch = config.train.accumulate, config.data.batch_size * ranks.world
    if sizes[0] is not None and batch <= sizes[0] < batch * accumulate:
        raise DataError(
            f"{sizes[0]} training images are fewer than one update of {accumulate} batches of {batch}: "
            f"set train.accumulate to at most {sizes[0] // batch}"
        )


def _size(data: ImageData) -> int | None:
    """Images of a split; None for streams, which do not know."""
    return None if isinstance(data.dataset, IterableDataset) else len(data.dataset)


def train_epoch(
    config: TrainConfig, parts: Parts, at: Position, folder: RunFolder, bar: EpochBar, stop: StopRequest
) -> dict[str, float]:
    """The rest of an epoch after the updates in `at.losses`; returns its training metrics."""
    settings, ranks = config.train, parts.ranks
    updates, first = updates_per_epoch(config, parts), len(at.losses)
    lr = _set_lr(parts, at.epoch * updates + max(first - 1, 0))
    train_mode(parts, config)
    images, waited, started = 0, 0.0, time.perf_counter()
    saved = started
    seed_all(settings.seed, at.epoch)
    batches = parts.train_batches.epoch(at.epoch, first * settings.accumulate)
    for step in range(first, updates):
        update = at.epoch * updates + step
        lr = _set_lr(parts, update)
        # Nothing drawn before counts: a resumed run draws the same from here on.
        seed_all(settings.seed, update + 1, ranks.rank)
        asked = time.perf_counter()
        try:
            taken = [next(batches) for _ in range(settings.accumulate)]
        except StopIteration:
            raise DataError(
                f"{config.data.source!r} ended after {step - first} of {updates - first} updates: it holds fewer "
                "images than its split says, or fewer than one batch"
            ) from None
        waited += time.perf_counter() - asked
        try:
            loss = run_update(parts, config, taken, update, bar.line)
        except NotFiniteError as error:
            raise MobilezooError(nan_message(parts.network, error.x, at.epoch, step, lr)) from None
        # One exchange: the mean loss, and whether any process was asked to stop.
        loss_sum, stops = total([loss, float(stop.asked)], parts.device, ranks)
        at.losses.append(loss_sum / ranks.world)
        images += ranks.world * sum(len(x) for x, _ in taken)
        elapsed = time.perf_counter() - started
        bar.step(at.losses[-1], images / elapsed, waited / elapsed, memory_mb(parts.device))
        if stops:
            raise _save_and_stop(folder, config, parts, at)
        if ranks.rank == 0 and _save_is_due(config, step + 1, updates, saved):
            save_checkpoint(folder.checkpoints, snapshot(parts, at, config), settings.keep)
            saved = time.perf_counter()
    elapsed = time.perf_counter() - started
    return {
        "epoch": at.epoch + 1,
        "train_loss": float(np.mean(at.losses)),
        "lr": lr,
        "images_per_s": images / elapsed,
        "data_wait_share": waited / elapsed,
        "memory_mb": memory_mb(parts.device),
        "bad_images": int(total([float(parts.bad_images)], parts.device, ranks)[0]),
    }


def validate(config: TrainConfig, parts: Parts, each: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Scores of the weights that would be shipped: the averaged ones where averaging is on; `each` runs per batch."""

    def batches() -> Iterator[Batch]:
        for batch in parts.val_batches:
            each()
            yield batch

    network = (parts.quantised or shipped(parts)).eval()
    if isinstance(network, SharedWeights):
        network = network.scored(parts.train_batches.epoch(0))
    with autocast(parts.device, config.train.amp):
        result = evaluate(network, batches())
    scores = [result.loss, result.top1, result.top5]
    if parts.ranks.world > 1:
        sums = total([result.images, *(s * result.images for s in scores)], parts.device, parts.ranks)
        scores = [s / sums[0] for s in sums[1:]]
    return {"val_loss": scores[0], "val_top1": scores[1], "val_top5": scores[2]}


def snapshot(parts: Parts, at: Position, config: TrainConfig) -> RunState:
    """The run's state as plain tensors and numbers."""
    return RunState(
        epoch=at.epoch,
        model=parts.network.state_dict(),
        ema=parts.ema.module.state_dict() if parts.ema is not None else None,
        optimizer=parts.optimizer.state_dict(),
        scaler=parts.scaler.state_dict(),
        history=at.history,
        step=len(at.losses),
        losses=tuple(at.losses),
        global_batch=_global_batch(config, parts),
        ranges=parts.quantised.ranges() if parts.quantised is not None else {},
    )


def restore(parts: Parts, state: RunState) -> None:
    """Put a saved state back into freshly assembled parts. Raises ConfigError where it is another network's."""
    try:
        parts.network.load_state_dict(state.model)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip().rstrip(".:")
        raise ConfigError(
            f"the saved state is of another network than config.model builds now ({first}): undo the change of the "
            "model's YAML, or start a run of another name"
        ) from None
    if parts.ema is not None and state.ema is not None:
        parts.ema.module.load_state_dict(state.ema)
    parts.optimizer.load_state_dict(state.optimizer)
    parts.scaler.load_state_dict(state.scaler)
    if parts.quantised is not None:
        parts.quantised.load_ranges(state.ranges)


def seed_all(seed: int, moment: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's global generators for one moment of one process."""
    value = seed * 1_000_003 + moment + rank * 7_919_000_003
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def updates_per_epoch(config: TrainConfig, parts: Parts) -> int:
    """Optimizer steps in one epoch."""
    return max(1, len(parts.train_batches) // config.train.accumulate)


def _start(folder: RunFolder, config: TrainConfig, parts: Parts, resume: bool, bar: EpochBar) -> Position:
    """The beginning, or the last whole checkpoint put back into `parts`."""
    state, damaged = latest_checkpoint(folder.checkpoints) if resume else (None, [])
    for line in damaged:
        bar.line(line)
    if state is None:
        return Position([], [])
    restore(parts, state)
    at = Position(state.history, list(state.losses))
    batch = _global_batch(config, parts)
    if state.step and state.global_batch != batch:
        # Another number of processes than before: the update of this epoch that has seen as many images.
        step = min(state.step * state.global_batch // batch, updates_per_epoch(config, parts) - 1)
        at.losses = [float(np.mean(state.losses))] * step
        bar.line(f"{state.global_batch} images per update before, {batch} now: an unbroken run would differ")
    bar.line(f"resuming {folder.path} after epoch {at.epoch}" + (f", step {len(at.losses)}" if at.losses else ""))
    if not at.losses and parts.ranks.rank == 0:
        _keep_best(folder, config, parts, at.history)
    return at


def _end_epoch(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position, boards: Boards) -> None:
    save_checkpoint(folder.checkpoints, snapshot(parts, at, config), config.train.keep)
    folder.write_history(at.history)
    _keep_best(folder, config, parts, at.history)
    boards.add(at.history[-1], at.epoch)


def _save_is_due(config: TrainConfig, done: int, updates: int, saved: float) -> bool:
    """By time or by count, and never where the end of the epoch saves anyway."""
    minutes, steps = config.train.save_every_min, config.train.save_every_steps
    by_time = minutes is not None and time.perf_counter() - saved >= 60 * minutes
    return done < updates and (by_time or (steps is not None and done % steps == 0))


def _stop_if_asked(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position, stop: StopRequest) -> None:
    """During validation: the epoch's updates are saved, a resumed run begins with its validation."""
    if stop.asked:
        raise _save_and_stop(folder, config, parts, at)


def _save_and_stop(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position) -> RunStoppedError:
    if parts.ranks.rank == 0:
        save_checkpoint(folder.checkpoints, snapshot(parts, at, config), config.train.keep)
    where = f"SIGTERM after epoch {at.epoch}, step {len(at.losses)}"
    return RunStoppedError(f"{where}: saved in {folder.path}, go on with --resume")


def _global_batch(config: TrainConfig, parts: Parts) -> int:
    return config.data.batch_size * config.train.accumulate * parts.ranks.world


def _set_lr(parts: Parts, update: int) -> float:
    parts.schedule.step_update(update)
    return float(parts.optimizer.param_groups[0]["lr"])


def _keep_best(folder: RunFolder, config: TrainConfig, parts: Parts, history: list[dict[str, float]]) -> None:
    """Save the current weights as the best where the last epoch is the best so far."""
    best = max(history, key=lambda row: (row["val_top1"], -row["val_loss"]))
    if best is not history[-1]:
        return
    folder.save_weights(folder.best, shipped(parts).state_dict(), record_of(config, parts, best))


def _best_record(folder: RunFolder) -> Checkpoint:
    from mobilezoo.artifacts import load_record_of

    return load_record_of(Checkpoint, folder.best)


def _summary(row: dict[str, float]) -> str:
    return (
        f"epoch {int(row['epoch']):3d}  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"top-1 {row['val_top1']:.2f}%  {row['images_per_s']:.0f} images/s"
        + (f"  {int(row['bad_images'])} unreadable images skipped" if row["bad_images"] else "")
    )
