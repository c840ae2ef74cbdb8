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
    """The network of a config with the file's weights, and as many classes and input channels as these have.

    Raises CheckpointError, ClassCountError where `num_classes` is another number.
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
