"""The training loop: timm's parts in a flat order, resumable after a kill at any moment with the same result.

The batches of an epoch follow from (seed, epoch), and the generators are seeded before every update from (seed,
update, process). So the weights, the optimizer, the average and the position are all that a resumed run needs to
repeat an unbroken one, bit for bit where the kernels are deterministic (as they are on CPU).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mobilezoo.artifacts import Checkpoint
from mobilezoo.data.loaders import Batch
from mobilezoo.errors import DataError, MobilezooError, RunStoppedError
from mobilezoo.train.assemble import assemble, seed_all, updates_per_epoch
from mobilezoo.train.checkpoints import save_checkpoint
from mobilezoo.train.compile import memory_mb
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.diagnose import nan_message
from mobilezoo.train.distributed import by_first, joined, total
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.export_hooks import ExportHooks, export_if_due
from mobilezoo.train.header import RunClock, header
from mobilezoo.train.loggers import Loggers
from mobilezoo.train.preview import keep_preview
from mobilezoo.train.progress import EpochBar, epoch_bar
from mobilezoo.train.resuming import Progress, best_record, keep_best, load_state, put_back, snapshot
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.run_lock import only_trainer_in
from mobilezoo.train.step import NotFiniteError, TrainState, autocast, eval_model, train_mode, train_step
from mobilezoo.train.stopping import StopRequest, explain_full_disk, stop_in_order
from mobilezoo.train.weight_sharing import SharedWeights


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    show_progress: bool = True,
    on_epoch: Callable[[int, float], None] | None = None,
    export_hooks: ExportHooks | None = None,
    resume_command: str = "run the same command again",
) -> Checkpoint:
    """Train to the end, or from the last whole checkpoint on.

    Under torchrun every process calls this; the first one writes. What was saved before an error stays.

    Args:
        config: the run.
        run_dir: its folder, made where there is none.
        resume: continue the run in the folder; from the beginning where it has no checkpoint yet.
        show_progress: draw bars and lines on standard error.
        on_epoch: called as on_epoch(epochs done, top-1 in percent) after each epoch is saved; what it raises ends the
            run and passes through.
        export_hooks: fake quantization and exports; None leaves them out.
        resume_command: named in the errors after which the run can be continued.

    Returns:
        The record of the best weights.

    Raises:
        RunStoppedError: SIGTERM or Ctrl-C arrived; the state is saved.
        MobilezooError: anything else that a user can mend.
    """
    with joined(config.train.device) as distributed, ExitStack() as held:
        folder, hooks, writes = RunFolder(run_dir), export_hooks or ExportHooks(), distributed.rank == 0

        def take() -> None:
            held.enter_context(only_trainer_in(run_dir))
            # Another run's folder is refused before time is spent on data and weights.
            folder.check(config, resume)

        by_first(take, distributed)
        saved, damaged = load_state(folder) if resume else (None, [])
        # What is wrong with data and settings shows here, while nothing is written.
        state = assemble(config if saved is None else _without_start(config), distributed, hooks)
        if writes:
            folder.begin(config)
            folder.keep_classes(state.labels)
            keep_preview(run_dir, config, state)
        with (
            explain_full_disk(resume_command, run_dir),
            stop_in_order(resume_command, folder.kept, announce=writes) as stop,
            epoch_bar(updates_per_epoch(config, state), show_progress, announce=writes) as bar,
        ):
            # Counting MACs for the header takes seconds: only where it is shown.
            head = header(config, state, folder) if show_progress and writes else ()
            bar.lines(head, warnings=(*state.left_out, *damaged))
            progress = Progress([], []) if saved is None else put_back(folder, config, state, saved, bar.warn)
            bar.lines(_where(folder, config, progress, resume))
            clock = RunClock(config, state, progress)
            with Loggers(run_dir, config, distributed) as loggers:
                while progress.epoch < config.train.epochs:
                    bar.start(progress.epoch, config.train.epochs, len(progress.losses))
                    row = train_epoch(config, state, progress, folder, bar, stop)
                    # A stop during validation keeps the epoch's updates: the next start begins with the validation.
                    row |= validate(config, state, lambda: _stop_if_requested(folder, config, state, progress, stop))
                    if writes:
                        row |= export_if_due(folder, config, state, row, bar, hooks)
                    _end_epoch(folder, config, state, progress, row, loggers)
                    # A quiet run shows no line of the epoch, but the number of images it skipped.
                    bar.lines(_summary(row, config, state, clock.left(progress)), [] if show_progress else _skips(row))
                    # The caller may end the run here, with the epoch saved (a search prunes its trials so).
                    if on_epoch is not None:
                        on_epoch(progress.epoch, row["val_top1"])
            if state.quantized is not None and hooks.write_int8 is not None:
                bar.lines(*hooks.write_int8(state.quantized, best_record(folder), folder.path))
            total([0.0], state.device, distributed)  # nobody reads the record before the first process has written it
        return best_record(folder)


def _without_start(config: TrainConfig) -> TrainConfig:
    """The config of a resumed run: the weights it began with are not needed and may be gone."""
    return config.model_copy(update={"checkpoint": None, "pretrained": False})


def train_epoch(
    config: TrainConfig, state: TrainState, progress: Progress, folder: RunFolder, bar: EpochBar, stop: StopRequest
) -> dict[str, float]:
    """The updates of an epoch that are not in `progress.losses` yet; returns its training metrics.

    Args:
        config: the run.
        state: changed in place.
        progress: position; the loss of each update is added to it.
        folder: where checkpoints within the epoch are saved.
        bar: advanced once per update.
        stop: read after every update.

    Raises:
        RunStoppedError: a stop was requested; the state is saved.
        DataError: the data ended before the epoch did.
        MobilezooError: the loss is not finite, or a batch does not fit the memory.
    """
    settings, distributed = config.train, state.distributed
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
        seed_all(settings.seed, update + 1, distributed.rank)
        # Take the batches of one update; the time spent here is waiting for data.
        fetch_started = time.perf_counter()
        taken = _take(batches, config, step - first, updates - first)
        waited += time.perf_counter() - fetch_started
        # Forward, backward and optimizer step; a loss that is not finite ends the run with the layer it came from.
        try:
            loss = train_step(state, config, taken, update, bar.warn)
        except NotFiniteError as error:
            raise MobilezooError(nan_message(state.network, error.x, progress.epoch, step, lr)) from None
        # One exchange: the mean loss, and whether any process received a signal to stop.
        loss_sum, stops = total([loss, float(stop.requested)], state.device, distributed)
        progress.losses.append(loss_sum / distributed.world)
        images += distributed.world * sum(len(x) for x, _ in taken)
        elapsed = time.perf_counter() - started
        bar.step(progress.losses[-1], images / elapsed, waited / elapsed, memory_mb(state.device))
        # Stop after a whole update, or save by count or by time.
        if stops:
            raise _save_and_stop(folder, config, state, progress, stop)
        if distributed.rank == 0 and _save_is_due(config, step + 1, updates, last_save):
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
        "bad_images": int(total([float(state.bad_images)], state.device, distributed)[0]),
    }


def _take(batches: Iterator[Batch], config: TrainConfig, done: int, updates: int) -> list[Batch]:
    """The batches of one update. Raises DataError where there are no more."""
    try:
        return [next(batches) for _ in range(config.train.accumulate)]
    except StopIteration:
        raise DataError(
            f"{config.data.source!r} ended after {done} of {updates} updates: it holds fewer images than its split "
            "says, or fewer than one batch"
        ) from None


def validate(config: TrainConfig, state: TrainState, on_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Loss, top-1 and top-5 in percent on the validation split, over all processes.

    Args:
        config: gives the precision.
        state: its averaged weights are scored, or the trained ones without averaging.
        on_batch: called before each batch; what it raises passes through.
    """

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
    if state.distributed.world > 1:
        sums = total([result.images, *(s * result.images for s in scores)], state.device, state.distributed)
        scores = [s / sums[0] for s in sums[1:]]
    return {"val_loss": scores[0], "val_top1": scores[1], "val_top5": scores[2]}


def _end_epoch(
    folder: RunFolder,
    config: TrainConfig,
    state: TrainState,
    progress: Progress,
    row: dict[str, float],
    loggers: Loggers,
) -> None:
    """Count the epoch as finished; the first process saves it, the best weights and the metrics."""
    progress.history.append(row)
    progress.losses.clear()
    if state.distributed.rank == 0:
        save_checkpoint(folder.checkpoints, snapshot(state, progress, config), config.train.keep)
        folder.write_history(progress.history)
        keep_best(folder, config, state, progress)
        loggers.add(row, progress.epoch)


def _save_is_due(config: TrainConfig, done: int, updates: int, last_save: float) -> bool:
    """By time or by count, and never where the end of the epoch saves anyway."""
    minutes, steps = config.train.save_every_min, config.train.save_every_steps
    by_time = minutes is not None and time.perf_counter() - last_save >= 60 * minutes
    return done < updates and (by_time or (steps is not None and done % steps == 0))


def _stop_if_requested(
    folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress, stop: StopRequest
) -> None:
    """During validation: the epoch's updates are saved, a resumed run begins with its validation."""
    if stop.requested:
        raise _save_and_stop(folder, config, state, progress, stop)


def _save_and_stop(
    folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress, stop: StopRequest
) -> RunStoppedError:
    if state.distributed.rank == 0:
        save_checkpoint(folder.checkpoints, snapshot(state, progress, config), config.train.keep)
    return stop.stopped(f"after epoch {progress.epoch}, step {len(progress.losses)}: saved in {folder.path}")


def _where(folder: RunFolder, config: TrainConfig, progress: Progress, resume: bool) -> list[str]:
    """A line on the position that the run starts from; none for a new run."""
    if not progress.epoch and not progress.losses:
        return [f"nothing to resume in {folder.path}: starting from the beginning"] if resume else []
    if progress.epoch >= config.train.epochs:
        return [f"{folder.path} is trained: {progress.epoch} of {config.train.epochs} epochs"]
    step = f", step {len(progress.losses)}" if progress.losses else ""
    return [f"resuming {folder.path} after epoch {progress.epoch}{step}"]


def _set_lr(state: TrainState, update: int) -> float:
    state.schedule.step_update(update)
    return float(state.optimizer.param_groups[0]["lr"])


def _summary(row: dict[str, float], config: TrainConfig, state: TrainState, left: str) -> list[str]:
    """The line of a finished epoch, and after the first one the size of the cache of small copies."""
    epoch, epochs = int(row["epoch"]), config.train.epochs
    columns = (
        f"epoch {epoch:{len(str(epochs))}d}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"val loss {row['val_loss']:.4f}",
        f"top-1 {row['val_top1']:.2f}%",
        f"{row['images_per_s']:,.0f} images/s",
        left,
        *_skips(row),
    )
    lines = ["  ".join(part for part in columns if part)]
    if state.cache is not None and epoch == 1:
        images, size = state.cache.size()
        lines.append(f"{images} small copies in {state.cache.folder}: {size / 1e6:.0f} MB")
    return lines


def _skips(row: dict[str, float]) -> list[str]:
    """A line on the images of an epoch that could not be read; none where all could."""
    return [f"{int(row['bad_images'])} unreadable images skipped"] if row["bad_images"] else []
