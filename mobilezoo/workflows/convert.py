"""`mobilezoo convert`."""

import os
from pathlib import Path

from mobilezoo.artifacts import Checkpoint, write_with_record
from mobilezoo.errors import ConfigError
from mobilezoo.files import sha256_of
from mobilezoo.workflows.model_options import ModelOptions


def convert_checkpoint(model: str, options: ModelOptions, out: Path | None = None) -> Path:
    """Write `options.checkpoint` as safetensors with this project's keys and its Checkpoint record.

    Args:
        model: the network that the weights are of.
        options: `checkpoint` must be set; class count and input channels are the file's own unless given.
        out: a .safetensors file; None writes beside the source.

    Returns:
        The path written.

    Raises:
        CheckpointError: the weights do not fit the network.
        ConfigError: `out` has another ending or is the source itself.
    """
    from safetensors.torch import save_file

    from mobilezoo.models.weights import classes_of
    from mobilezoo.workflows.load_model import load_model

    assert options.checkpoint is not None
    source = options.checkpoint
    out = out or source.with_suffix(".safetensors")
    if out.suffix != ".safetensors" or os.path.realpath(out) == os.path.realpath(source):
        raise ConfigError(f"--out {str(out)!r}: a .safetensors file, and another one than what is converted")
    loaded = load_model(model, options)
    tensors = {k: v.contiguous().clone() for k, v in loaded.network.state_dict().items()}
    metadata = {"model": model, "source": source.name}

    def describe(written: Path) -> Checkpoint:
        return Checkpoint(
            path=out.name,
            sha256=sha256_of(written),
            model=model,
            num_classes=classes_of(loaded.network),
            in_chans=loaded.in_chans,
            resolution=loaded.resolution,
            preprocessing=loaded.preprocessing,
            labels=loaded.labels,
            origin=loaded.origin,
        )

    write_with_record(out, lambda temporary: save_file(tensors, temporary, metadata=metadata), describe)
    return out
