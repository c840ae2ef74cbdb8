"""Official and own checkpoints → a network's weights, key by key; where they are in a file, `weights.py` finds out."""

import sys
import warnings
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from torch import Tensor, nn

from mobilezoo.errors import CheckpointError
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.weights import (
    Tensors,
    find_weights,
    head_keys,
    is_plain,
    names,
    tensors_of,
    without_counts,
)


class ClassCountError(CheckpointError):
    """Weights of another number of classes than the network's."""

    def __init__(self, path: str | Path, there: int, here: int, remedy: str) -> None:
        super().__init__(f"{str(path)!r} has {there} classes, the network {here}: {remedy}")
        self.path, self.there, self.here = path, there, here

    def remedied(self, remedy: str) -> "ClassCountError":
        """The same with what the caller offers."""
        return ClassCountError(self.path, self.there, self.here, remedy)


def load_checkpoint(
    network: nn.Module, config: ModelConfig, path: str | Path, *, key: str | None = None, reset_head: bool = False
) -> None:
    """Load an official or own file into `network`, strictly; only `num_batches_tracked` may be missing.

    Where several branches of the file fit, a line on standard error names the one taken. The two heads of a distilled
    file become their mean in a one-head network: what official inference computes.

    Args:
        network: network that is changed in place.
        config: its config, whose family renames official keys.
        path: file with the weights.
        key: dotted path of the weights in the file; None to find them.
        reset_head: leave a classifier of another class count with its fresh weights, with a warning.

    Raises:
        ClassCountError: another class count, and `reset_head` is off.
        CheckpointError: the file cannot be read or does not fit; the first keys that differ are listed.
    """
    load_state(network, config, read_state(network, config, path, key), path, reset_head)


def read_state(network: nn.Module, config: ModelConfig, path: str | Path, key: str | None) -> Tensors:
    """Read the weights of a file; a line on standard error names the branch taken where there was a choice.

    Args:
        network: network that the weights are for.
        config: its config, whose family renames official keys.
        path: file with the weights.
        key: dotted path of the weights in the file; None to find them.

    Returns:
        Tensors by the network's own names.

    Raises:
        CheckpointError: the file cannot be read, or two branches fit equally well.
    """
    found = find_weights(network, config, tensors_of(path, key), path)
    if line := found.line(path):
        sys.stderr.write(f"{line}\n")
    return found.taken.state


def load_state(network: nn.Module, config: ModelConfig, state: Tensors, path: str | Path, reset_head: bool) -> None:
    """Copy weights into `network`.

    Args:
        network: network that is changed in place.
        config: its config, for messages.
        state: tensors by the network's own names.
        path: file that they come from, for messages.
        reset_head: leave a classifier of another class count with its fresh weights, with a warning.

    Raises:
        ClassCountError: another class count, and `reset_head` is off.
        CheckpointError: names, shapes or kinds differ, or values are not finite.
    """
    own = network.state_dict()
    resized = [k for k in head_keys(network) if k in own and k in state and own[k].shape[:1] != state[k].shape[:1]]
    if resized:
        if not reset_head:
            there, here = int(state[resized[0]].shape[0]), int(own[resized[0]].shape[0])
            raise ClassCountError(path, there, here, "pass reset_head=True (or the same num_classes)")
        warnings.warn(f"{path}: new random classifier, {', '.join(resized)} not loaded", stacklevel=4)
        state = {k: v for k, v in state.items() if k not in resized}
    _compare(own, state, set(resized), config, path)
    counted = [k for k, v in state.items() if k not in own or own[k].shape != v.shape or not is_plain(v)]
    taken = {k: v for k, v in state.items() if k not in counted}  # the rest is only what norms counted
    network.load_state_dict(taken, strict=False)


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; the sum shows it in one pass without a copy, unless it overflows."""
    if not tensor.is_floating_point():
        return True
    return (tensor.element_size() > 1 and isfinite(float(tensor.sum()))) or bool(tensor.isfinite().all())


def _compare(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], optional: set[str], config: ModelConfig, path: str | Path
) -> None:
    """Raise CheckpointError with the first keys missing, unexpected, of another shape or kind, or not finite."""
    ours, theirs = without_counts(own), without_counts(state)
    both = [k for k in ours if k in theirs]
    shapes = [k for k in both if ours[k].shape != theirs[k].shape]
    faults = {
        "missing": [k for k in ours if k not in theirs and k not in optional],
        "unexpected": [k for k in theirs if k not in ours],
        "of another shape": [f"{k} {tuple(theirs[k].shape)} instead of {tuple(ours[k].shape)}" for k in shapes],
        "no plain tensors": [k for k in both if not is_plain(theirs[k])],
        "whole numbers instead of weights": [
            k for k in both if ours[k].is_floating_point() and not theirs[k].is_floating_point()
        ],
    }
    if not any(faults.values()):
        faults["not finite (the training diverged, or the file is damaged)"] = [
            k for k in both if not _is_finite(theirs[k]) and _is_finite(ours[k])
        ]
    told = [f"{word}: {names(keys)}" for word, keys in faults.items() if keys]
    if told:
        raise CheckpointError(f"{str(path)!r} does not fit {config.name}: {'; '.join(told)}")
