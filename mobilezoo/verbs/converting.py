"""`mobilezoo convert`."""

from pathlib import Path

from mobilezoo.artifacts import Checkpoint, atomic_write, save_record, sha256_of


def convert_checkpoint(official: Path, model: str, out: Path | None = None, key: str | None = None) -> Path:
    """Write an official file as safetensors with our keys and its Checkpoint record; returns the path written.

    Class count and input channels are the file's own. Raises CheckpointError.
    """
    from safetensors.torch import save_file

    from mobilezoo.models import load_model_config
    from mobilezoo.models.checkpoint import network_of_file
    from mobilezoo.models.weights import channels_of, classes_of

    config = load_model_config(model)
    network = network_of_file(config, official, key=key)
    tensors = {k: v.contiguous().clone() for k, v in network.state_dict().items()}
    out = out or official.with_suffix(".safetensors")
    metadata = {"model": config.name, "source": official.name}
    atomic_write(out, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    record = Checkpoint(
        path=out.name,
        sha256=sha256_of(out),
        model=model,
        num_classes=classes_of(network),
        in_chans=channels_of(network),
        resolution=config.resolution,
        preprocessing=config.preprocessing(),
    )
    save_record(out, record)
    return out
