"""Where a run stands: taken from the running parts, saved, and put back into them."""

from dataclasses import dataclass

import numpy as np

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.train.assemble import global_batch, updates_per_epoch
from mobilezoo.train.checkpoints import RunState, latest_checkpoint
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.run_folder import RunFolder
from mobilezoo.train.step import OnMessage, Parts, shipped
from mobilezoo.train.tools import record_of


@dataclass
class Position:
    """Where a run stands: finished epochs with their metrics, and the losses of the updates since."""

    history: list[dict[str, float]]
    losses: list[float]
    lost: int = 0
    """Epochs at the beginning whose weights are kept no more as the best."""

    @property
    def epoch(self) -> int:
        return len(self.history)


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
        global_batch=global_batch(config, parts),
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


def load_state(folder: RunFolder) -> tuple[RunState | None, list[str]]:
    """The last whole checkpoint, None where there is none yet, and lines on damaged ones. Raises MobilezooError."""
    state, damaged = latest_checkpoint(folder.checkpoints)
    if state is None and damaged:
        raise MobilezooError(
            f"no whole checkpoint is left in {str(folder.checkpoints)!r}: {damaged[0].partition(': using')[0]}; "
            "restore one, or delete that folder to train from the beginning"
        )
    return state, damaged


def put_back(folder: RunFolder, config: TrainConfig, parts: Parts, state: RunState, on_message: OnMessage) -> Position:
    """A saved state in freshly assembled parts, and where the run stands. Raises ConfigError."""
    restore(parts, state)
    at = Position(state.history, list(state.losses))
    batch = global_batch(config, parts)
    if state.step and state.global_batch != batch:
        # Another number of processes than before: the update of this epoch that has seen as many images.
        step = min(state.step * state.global_batch // batch, updates_per_epoch(config, parts) - 1)
        at.losses = [float(np.mean(state.losses))] * step
        on_message(f"{state.global_batch} images per update before, {batch} now: an unbroken run would differ")
    at.lost = _epochs_without_weights(folder, at, on_message)
    if not at.losses and parts.ranks.rank == 0:
        keep_best(folder, config, parts, at)
    return at


def _epochs_without_weights(folder: RunFolder, at: Position, on_message: OnMessage) -> int:
    """How many epochs at the beginning can be the best no more: the best weights are of a later one, or are gone."""
    if not at.history:
        return 0
    try:
        return (best_record(folder).epoch or 1) - 1
    except MobilezooError as error:
        on_message(f"{error}; going on without: the best of the epochs from here on is kept")
        return at.epoch - (0 if at.losses else 1)


def keep_best(folder: RunFolder, config: TrainConfig, parts: Parts, at: Position) -> None:
    """Save the current weights as the best where the last epoch is the best of those whose weights exist."""
    rows = at.history[at.lost :]
    if not rows or max(rows, key=lambda row: (row["val_top1"], -row["val_loss"])) is not rows[-1]:
        return
    folder.save_weights(folder.best, shipped(parts).state_dict(), record_of(config, parts, rows[-1]))


def best_record(folder: RunFolder) -> Checkpoint:
    """What is said of the best weights. Raises MobilezooError where they are damaged or absent."""
    return load_record_of(Checkpoint, folder.best)
