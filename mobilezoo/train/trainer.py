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
from mobilezoo.data.samplers import Ranks
from mobilezoo.errors import DataError, MobilezooError, RunStoppedError
from mobilezoo.train.assemble import assemble, seed_all, updates_per_epoch
from mobilezoo.train.checkpoints import save_checkpoint
from mobilezoo.train.compile import memory_mb
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.diagnose import nan_message
from mobilezoo.train.distributed import joined, total
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.export_hooks import ExportHooks, export_if_due, say
from mobilezoo.train.header import RunClock, header
from mobilezoo.train.loggers import Loggers
from mobilezoo.train.progress import EpochBar, epoch_bar
from mobilezoo.train.resuming import Progress, best_record, keep_best, load_state, put_back, snapshot
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.run_lock import only_trainer_in
from mobilezoo.train.step import NotFiniteError, TrainState, autocast, eval_model, train_mode, train_step
from mobilezoo.train.stopping import StopRequest, full_disk_told, stop_in_order
from mobilezoo.train.weight_sharing import SharedWeights


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    show_progress: bool = True,
    on_epoch: Callable[[int, float], None] | None = None,
    export_hooks: ExportHooks | None = None,
    go_on: str = "run the same command again",
) -> Checkpoint:
    """Train to the end (or from the last whole checkpoint on) and return the record of the best weights.

    Under torchrun every process calls this; the first one writes. `on_epoch(epoch, top1)` is called after each epoch
    is saved; what it raises ends the run and passes through. Raises MobilezooError for anything a user can mend and
    RunStoppedError after SIGTERM or Ctrl-C; that and a full disk tell to `go_on`. What was saved before stays.
    """
    with joined(config.train.device) as ranks, _held(run_dir, ranks):
        folder, export_hooks = RunFolder(run_dir), export_hooks or ExportHooks()
        if ranks.rank == 0:
            folder.check(config, resume)
        saved, damaged = load_state(folder) if resume else (None, [])
        state = assemble(config if saved is None else _without_start(config), ranks, export_hooks)
        if ranks.rank == 0:
            folder.begin(config)
            folder.keep_classes(state.labels)
        with (
            full_disk_told(go_on, run_dir),
            stop_in_order(go_on, folder.kept, speaks=ranks.rank == 0) as stop,
            epoch_bar(updates_per_epoch(config, state), show_progress, speaks=ranks.rank == 0) as bar,
        ):
            head = header(config, state, folder) if show_progress and ranks.rank == 0 else ()
            for line in head:
                bar.line(line)
            for line in (*state.left_out, *damaged):
                bar.warn(line)
            progress = Progress([], []) if saved is None else put_back(folder, config, state, saved, bar.warn)
            if line := _where(folder, config, progress, resume):
                bar.line(line)
            clock = RunClock(config, state, progress)
            with Loggers(run_dir, config, ranks) as loggers:
                while progress.epoch < config.train.epochs:
                    bar.start(progress.epoch, config.train.epochs, len(progress.losses))
                    row = train_epoch(config, state, progress, folder, bar, stop)
                    row |= validate(config, state, lambda: _stop_if_asked(folder, config, state, progress, stop))
                    if ranks.rank == 0:
                        row |= export_if_due(folder, config, state, row, bar, export_hooks)
                    progress.history.append(row)
                    progress.losses.clear()
                    if ranks.rank == 0:
                        _end_epoch(folder, config, state, progress, loggers)
                    bar.line(_summary(row, config.train.epochs, clock.left(progress)))
                    if not show_progress and row["bad_images"]:
                        bar.warn(_skipped(row))
                    if state.cache is not None and progress.epoch == 1:
                        images, size = state.cache.size()
                        bar.line(f"{images} small copies in {state.cache.folder}: {size / 1e6:.0f} MB")
                    if on_epoch is not None:
                        on_epoch(progress.epoch, row["val_top1"])
            if state.quantized is not None and export_hooks.write_int8 is not None:
                say(bar, *export_hooks.write_int8(state.quantized, best_record(folder), folder.path))
            total([0.0], state.device, ranks)  # nobody reads the record before the first process has written it
        return best_record(folder)


def _held(run_dir: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """The folder's lock, which the processes of one run share."""
    return only_trainer_in(run_dir) if ranks.rank == 0 else nullcontext()


def _without_start(config: TrainConfig) -> TrainConfig:
    """For a run that goes on: the weights it began with may be gone by now."""
    return config.model_copy(update={"checkpoint": None, "pretrained": False})


def train_epoch(
    config: TrainConfig, state: TrainState, progress: Progress, folder: RunFolder, bar: EpochBar, stop: StopRequest
) -> dict[str, float]:
    """The rest of an epoch after the updates in `progress.losses`; returns its training metrics."""
    settings, ranks = config.train, state.ranks
    # A resumed epoch begins after the updates that its checkpoint holds.
    updates, first = updates_per_epoch(config, state), len(progress.losses)
    lr = _set_lr(state, progress.epoch * updates + max(first - 1, 0))
    train_mode(state, config)
    images, waited, started = 0, 0.0, time.perf_counter()
    last_save = started
    seed_all(settings.seed, progress.epoch)
    batches = state.train_batches.epoch(progress.epoch, first * settings.accumulate)
    for step in range(first, updates):
        update = progress.epoch * updates + step
        lr = _set_lr(state, update)
        # Nothing drawn before counts: a resumed run draws the same from here on.
        seed_all(settings.seed, update + 1, ranks.rank)
        # Take the batches of one update; the time spent here is waiting for data.
        asked = time.perf_counter()
        try:
            taken = [next(batches) for _ in range(settings.accumulate)]
        except StopIteration:
            raise DataError(
                f"{config.data.source!r} ended after {step - first} of {updates - first} updates: it holds fewer "
                "images than its split says, or fewer than one batch"
            ) from None
        waited += time.perf_counter() - asked
        # Forward, backward and optimizer step; a loss that is not finite ends the run with the layer it came from.
        try:
            loss = train_step(state, config, taken, update, bar.warn)
        except NotFiniteError as error:
            raise MobilezooError(nan_message(state.network, error.x, progress.epoch, step, lr)) from None
        # One exchange: the mean loss, and whether any process was asked to stop.
        loss_sum, stops = total([loss, float(stop.asked)], state.device, ranks)
        progress.losses.append(loss_sum / ranks.world)
        images += ranks.world * sum(len(x) for x, _ in taken)
        elapsed = time.perf_counter() - started
        bar.step(progress.losses[-1], images / elapsed, waited / elapsed, memory_mb(state.device))
        # Stop after a whole update, or save by count or by time.
        if stops:
            raise _save_and_stop(folder, config, state, progress, stop)
        if ranks.rank == 0 and _save_is_due(config, step + 1, updates, last_save):
            save_checkpoint(folder.checkpoints, snapshot(state, progress, config), settings.keep)
            last_save = time.perf_counter()
    elapsed = time.perf_counter() - started
    return {
        "epoch": progress.epoch + 1,
        "train_loss": float(np.mean(progress.losses)),
        "lr": lr,
        "images_per_s": images / elapsed,
        "data_wait_share": waited / elapsed,
        "memory_mb": memory_mb(state.device),
        "bad_images": int(total([float(state.bad_images)], state.device, ranks)[0]),
    }


def validate(config: TrainConfig, state: TrainState, on_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Scores of the averaged weights, or of the trained ones without averaging; `on_batch` runs before each batch."""

    def batches() -> Iterator[Batch]:
        for batch in state.val_batches:
            on_batch()
            yield batch

    network = (state.quantized or eval_model(state)).eval()
    if isinstance(network, SharedWeights):
        network = network.scored(state.train_batches.epoch(0))
    with autocast(state.device, config.train.amp):
        result = evaluate(network, batches())
    scores = [result.loss, result.top1, result.top5]
    if state.ranks.world > 1:
        sums = total([result.images, *(s * result.images for s in scores)], state.device, state.ranks)
        scores = [s / sums[0] for s in sums[1:]]
    return {"val_loss": scores[0], "val_top1": scores[1], "val_top5": scores[2]}


def _end_epoch(folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress, loggers: Loggers) -> None:
    save_checkpoint(folder.checkpoints, snapshot(state, progress, config), config.train.keep)
    folder.write_history(progress.history)
    keep_best(folder, config, state, progress)
    loggers.add(progress.history[-1], progress.epoch)


def _save_is_due(config: TrainConfig, done: int, updates: int, last_save: float) -> bool:
    """By time or by count, and never where the end of the epoch saves anyway."""
    minutes, steps = config.train.save_every_min, config.train.save_every_steps
    by_time = minutes is not None and time.perf_counter() - last_save >= 60 * minutes
    return done < updates and (by_time or (steps is not None and done % steps == 0))


def _stop_if_asked(
    folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress, stop: StopRequest
) -> None:
    """During validation: the epoch's updates are saved, a resumed run begins with its validation."""
    if stop.asked:
        raise _save_and_stop(folder, config, state, progress, stop)


def _save_and_stop(
    folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress, stop: StopRequest
) -> RunStoppedError:
    if state.ranks.rank == 0:
        save_checkpoint(folder.checkpoints, snapshot(state, progress, config), config.train.keep)
    return stop.stopped(f"after epoch {progress.epoch}, step {len(progress.losses)}: saved in {folder.path}")


def _where(folder: RunFolder, config: TrainConfig, progress: Progress, resume: bool) -> str:
    """What a run begins with, in words."""
    if not progress.epoch and not progress.losses:
        return f"nothing to resume in {folder.path}: starting from the beginning" if resume else ""
    if progress.epoch >= config.train.epochs:
        return f"{folder.path} is trained: {progress.epoch} of {config.train.epochs} epochs"
    return f"resuming {folder.path} after epoch {progress.epoch}" + (
        f", step {len(progress.losses)}" if progress.losses else ""
    )


def _set_lr(state: TrainState, update: int) -> float:
    state.schedule.step_update(update)
    return float(state.optimizer.param_groups[0]["lr"])


def _summary(row: dict[str, float], epochs: int, left: str) -> str:
    columns = (
        f"epoch {int(row['epoch']):{len(str(epochs))}d}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"val loss {row['val_loss']:.4f}",
        f"top-1 {row['val_top1']:.2f}%",
        f"{row['images_per_s']:,.0f} images/s",
        left,
        _skipped(row) if row["bad_images"] else "",
    )
    return "  ".join(part for part in columns if part)


def _skipped(row: dict[str, float]) -> str:
    return f"{int(row['bad_images'])} unreadable images skipped"
