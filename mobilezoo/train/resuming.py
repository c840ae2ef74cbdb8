"""Converts a running state to a checkpoint's content and back, and keeps the best weights."""

from dataclasses import dataclass

import numpy as np

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.train.assemble import global_batch, updates_per_epoch
from mobilezoo.train.checkpoints import RunState, latest_checkpoint
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.export_hooks import record_of
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.step import OnMessage, TrainState, eval_model


@dataclass
class Progress:
    """Finished epochs with their metrics, and the losses of the updates since."""

    history: list[dict[str, float]]
    losses: list[float]
    lost: int = 0
    """Epochs at the beginning whose weights are kept no more as the best."""

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)


def snapshot(state: TrainState, progress: Progress, config: TrainConfig) -> RunState:
    """The run's state as plain tensors and numbers; tensors are not copied.

    Args:
        state: network, average, optimizer and scaler.
        progress: position and history.
        config: gives the images per update.
    """
    return RunState(
        epoch=progress.epoch,
        model=state.network.state_dict(),
        ema=state.ema.module.state_dict() if state.ema is not None else None,
        optimizer=state.optimizer.state_dict(),
        scaler=state.scaler.state_dict(),
        history=progress.history,
        step=len(progress.losses),
        losses=tuple(progress.losses),
        global_batch=global_batch(config, state),
        ranges=state.quantized.ranges() if state.quantized is not None else {},
    )


def restore(state: TrainState, saved: RunState) -> None:
    """Load a saved state into a freshly assembled one, in place.

    Args:
        state: assembled from the same config.
        saved: content of a checkpoint.

    Raises:
        ConfigError: the saved weights are another network's.
    """
    try:
        state.network.load_state_dict(saved.model)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip().rstrip(".:")
        raise ConfigError(
            f"the saved state is of another network than config.model builds now ({first}): undo the change of the "
            "model's YAML, or start a run of another name"
        ) from None
    if state.ema is not None and saved.ema is not None:
        state.ema.module.load_state_dict(saved.ema)
    state.optimizer.load_state_dict(saved.optimizer)
    state.scaler.load_state_dict(saved.scaler)
    if state.quantized is not None:
        state.quantized.load_ranges(saved.ranges)


def load_state(folder: RunFolder) -> tuple[RunState | None, list[str]]:
    """The last whole checkpoint, None where there is none yet, and lines on damaged ones. Raises MobilezooError."""
    saved, damaged = latest_checkpoint(folder.checkpoints)
    if saved is None and damaged:
        raise MobilezooError(
            f"no whole checkpoint is left in {str(folder.checkpoints)!r}: {damaged[0].partition(': using')[0]}; "
            "restore one, or delete that folder to train from the beginning"
        )
    return saved, damaged


def put_back(
    folder: RunFolder, config: TrainConfig, state: TrainState, saved: RunState, on_message: OnMessage
) -> Progress:
    """Load a saved state and return the progress of its run.

    Args:
        folder: its best weights decide from which epoch on a best one can be kept.
        config: the run.
        state: assembled from `config`; changed in place.
        saved: content of the newest whole checkpoint.
        on_message: receives a line where the number of processes changed or the best weights are gone.

    Raises:
        ConfigError: the saved weights are another network's.
    """
    restore(state, saved)
    progress = Progress(saved.history, list(saved.losses))
    batch = global_batch(config, state)
    if saved.step and saved.global_batch != batch:
        # Another number of processes than before: the update of this epoch that has seen as many images.
        step = min(saved.step * saved.global_batch // batch, updates_per_epoch(config, state) - 1)
        progress.losses = [float(np.mean(saved.losses))] * step
        on_message(f"{saved.global_batch} images per update before, {batch} now: an unbroken run would differ")
    progress.lost = _epochs_without_weights(folder, progress, on_message)
    if not progress.losses and state.distributed.rank == 0:
        keep_best(folder, config, state, progress)
    return progress


def _epochs_without_weights(folder: RunFolder, progress: Progress, on_message: OnMessage) -> int:
    """How many epochs at the beginning can be the best no more: the best weights are of a later one, or are gone."""
    if not progress.history:
        return 0
    try:
        return (best_record(folder).epoch or 1) - 1
    except MobilezooError as error:
        on_message(f"{error}; going on without: the best of the epochs from here on is kept")
        return progress.epoch - (0 if progress.losses else 1)


def keep_best(folder: RunFolder, config: TrainConfig, state: TrainState, progress: Progress) -> None:
    """Save the current weights as the best where the last epoch is the best of those whose weights exist.

    Args:
        folder: where `best.safetensors` is written.
        config: the run.
        state: its averaged weights are saved, or the trained ones without averaging.
        progress: ranked by top-1, then by lower validation loss.
    """
    rows = progress.history[progress.lost :]
    if not rows or max(rows, key=lambda row: (row["val_top1"], -row["val_loss"])) is not rows[-1]:
        return
    folder.save_weights(folder.best, eval_model(state).state_dict(), record_of(config, state, rows[-1]))


def best_record(folder: RunFolder) -> Checkpoint:
    """The record of the best weights. Raises MobilezooError where it or the weights are damaged or absent."""
    return load_record_of(Checkpoint, folder.best)
