"""Networks built to fit a weight file: as many classes and input channels as the file's weights have."""

from pathlib import Path
from typing import Any

from torch import nn

from mobilezoo.errors import CheckpointError
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.checkpoint import ClassCountError, load_state, read_state
from mobilezoo.models.registry import create_model
from mobilezoo.models.weights import channels_of, classes_of, sizes_of


def network_of_file(
    config: ModelConfig,
    path: str | Path,
    *,
    key: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The network of a config with a file's weights, and with as many classes and input channels as these have.

    Args:
        config: the architecture.
        path: file with the weights.
        key: dotted path of the weights in the file; None to find them.
        num_classes: class count the file must have; None for any.
        in_chans: input channels the file must have; None for any.
        kwargs: other arguments of `create_model`.

    Raises:
        ClassCountError: the file has another number of classes.
        CheckpointError: the file cannot be read, does not fit, or has another number of input channels.
    """
    network = create_model(config, **kwargs)
    state = read_state(network, config, path, key)
    sizes = sizes_of(network, state)
    if sizes is not None:
        classes, channels = sizes
        if num_classes not in (None, classes):
            raise ClassCountError(path, classes, num_classes or 0, f"leave --num-classes out, or give {classes}")
        if in_chans not in (None, channels):
            raise CheckpointError(
                f"{str(path)!r} takes {channels} input channels, not {in_chans}: leave --in-chans out"
            )
        if sizes != (classes_of(network), channels_of(network)):
            network = create_model(config, num_classes=classes, in_chans=channels, **kwargs)
    load_state(network, config, state, path, reset_head=False)
    return network
