"""The training loop: timm's parts in a flat order, resumable after a kill at any moment with the same result.

The batches of an epoch follow from (seed, epoch), and the generators are seeded before every update from (seed,
update, process). So the weights, the optimizer, the average and the position are all that a resumed run needs to
repeat an unbroken one, bit for bit where the kernels are deterministic (as they are on CPU).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from mobilezoo.artifacts import Checkpoint
from mobilezoo.data.loaders import Batch
from mobilezoo.data.order import Ranks
from mobilezoo.errors import DataError, MobilezooError, RunStoppedError
from mobilezoo.train.assemble import assemble, seed_all, updates_per_epoch
from mobilezoo.train.boards import Boards
from mobilezoo.train.checkpoints import save_checkpoint
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.diagnose import nan_message
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.hardware import memory_mb
from mobilezoo.train.header import RunClock, header
from mobilezoo.train.progress import EpochBar, epoch_bar
from mobilezoo.train.ranks import joined, total
from mobilezoo.train.resuming import Position, best_record, keep_best, load_state, put_back, snapshot
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.run_lock import only_trainer_in
from mobilezoo.train.shared import SharedWeights
from mobilezoo.train.step import NotFiniteError, Parts, autocast, run_update, shipped, train_mode
from mobilezoo.train.stopping import StopRequest, full_disk_told, stop_in_order
from mobilezoo.train.tools import Tools, export_if_due


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    show_progress: bool = True,
    on_epoch: Callable[[int, float], None] | None = None,
    tools: Tools | None = None,
    go_on: str = "run the same command again",
) -> Checkpoint:
    """Train to the end (or from the last whole checkpoint on) and return the record of the best weights.

    Under torchrun every process calls this; the first one writes. `on_epoch(epoch, top1)` is called after each epoch
    is saved; what it raises ends the run and passes through. Raises MobilezooError for anything a user can mend and
    RunStoppedError after SIGTERM or Ctrl-C; that and a full disk tell to `go_on`. What was saved before stays.
    """
    with joined(config.train.device) as ranks, _held(run_dir, ranks):
        folder, tools = RunFolder(run_dir), tools or Tools()
        if ranks.rank == 0:
            folder.check(config, resume)
        state, damaged = load_state(folder) if resume else (None, [])
        parts = assemble(config if state is None else _without_start(config), ranks, tools)
        if ranks.rank == 0:
            folder.begin(config)
            folder.keep_classes(parts.labels)
        with (
            full_disk_told(go_on, run_dir),
            stop_in_order(go_on, folder.kept, speaks=ranks.rank == 0) as stop,
            epoch_bar(updates_per_epoch(config, parts), show_progress and ranks.rank == 0) as bar,
        ):
            head = header(config, parts, folder) if show_progress and ranks.rank == 0 else ()
            for line in (*head, *parts.left_out, *damaged):
                bar.line(line)
            at = Position([], []) if state is None else put_back(folder, config, parts, state, bar.line)
            if line := _where(folder, config, at, resume):
                bar.line(line)
            clock = RunClock(config, parts, at)
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
                    bar.line(_summary(row, config.train.epochs, clock.left(at)))
                    if parts.cache is not None and at.epoch == 1:
                        images, size = parts.cache.size()
                        bar.line(f"{images} small copies in {parts.cache.folder}: {size / 1e6:.0f} MB")
                    if on_epoch is not None:
                        on_epoch(at.epoch, row["val_top1"])
            if parts.quantised is not None and tools.write_int8 is not None:
                for line in tools.write_int8(parts.quantised, best_record(folder), folder.path):
                    bar.line(line)
            total([0.0], parts.device, ranks)  # nobody reads the record before the first process has written it
        return best_record(folder)


def _held(run_dir: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """The folder's lock, which the processes of one run share."""
    return only_trainer_in(run_dir) if ranks.rank == 0 else nullcontext()


def _without_start(config: TrainConfig) -> TrainConfig:
    """For a run that goes on: the weights it began with may be gone by now."""
    return config.model_copy(update={"checkpoint": None, "pretrained": False})


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
            raise _save_and_stop(folder, config, parts, at, stop)
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


def validate(config: TrainConfig, parts: Parts, on_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Scores of the averaged weights, or of the trained ones without averaging; `on_batch` runs before each batch."""

    def batches() -> Iterator[Batch]:
        for batch in parts.val_batches:
            on_batch()
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


def _end_epoch(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position, boards: Boards) -> None:
    save_checkpoint(folder.checkpoints, snapshot(parts, at, config), config.train.keep)
    folder.write_history(at.history)
    keep_best(folder, config, parts, at)
    boards.add(at.history[-1], at.epoch)


def _save_is_due(config: TrainConfig, done: int, updates: int, saved: float) -> bool:
    """By time or by count, and never where the end of the epoch saves anyway."""
    minutes, steps = config.train.save_every_min, config.train.save_every_steps
    by_time = minutes is not None and time.perf_counter() - saved >= 60 * minutes
    return done < updates and (by_time or (steps is not None and done % steps == 0))


def _stop_if_asked(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position, stop: StopRequest) -> None:
    """During validation: the epoch's updates are saved, a resumed run begins with its validation."""
    if stop.asked:
        raise _save_and_stop(folder, config, parts, at, stop)


def _save_and_stop(
    folder: RunFolder, config: TrainConfig, parts: Parts, at: Position, stop: StopRequest
) -> RunStoppedError:
    if parts.ranks.rank == 0:
        save_checkpoint(folder.checkpoints, snapshot(parts, at, config), config.train.keep)
    return stop.stopped(f"after epoch {at.epoch}, step {len(at.losses)}: saved in {folder.path}")


def _where(folder: RunFolder, config: TrainConfig, at: Position, resume: bool) -> str:
    """What a run begins with, in words."""
    if not at.epoch and not at.losses:
        return f"nothing to resume in {folder.path}: starting from the beginning" if resume else ""
    if at.epoch >= config.train.epochs:
        return f"{folder.path} is trained: {at.epoch} of {config.train.epochs} epochs"
    return f"resuming {folder.path} after epoch {at.epoch}" + (f", step {len(at.losses)}" if at.losses else "")


def _set_lr(parts: Parts, update: int) -> float:
    parts.schedule.step_update(update)
    return float(parts.optimizer.param_groups[0]["lr"])


def _summary(row: dict[str, float], epochs: int, left: str) -> str:
    parts = (
        f"epoch {int(row['epoch']):{len(str(epochs))}d}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"val loss {row['val_loss']:.4f}",
        f"top-1 {row['val_top1']:.2f}%",
        f"{row['images_per_s']:,.0f} images/s",
        left,
        f"{int(row['bad_images'])} unreadable images skipped" if row["bad_images"] else "",
    )
    return "  ".join(part for part in parts if part)
