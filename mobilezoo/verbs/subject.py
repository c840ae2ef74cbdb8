"""What a verb is about: a zoo name, a model YAML, a checkpoint of ours, or any timm model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Checkpoint, Preprocessing, load_record_of
from mobilezoo.errors import CheckpointError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo.models.base import ModelConfig


@dataclass
class Subject:
    """A network in eval mode with all that its files need to carry."""

    network: "nn.Module"
    name: str
    resolution: int
    in_chans: int
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    dataset: str
    fresh: bool
    """True where the weights are random: fine for latency, meaningless for accuracy."""
    checkpoint: Path | None
    """Where the weights came from."""

    @property
    def folder(self) -> Path | None:
        """Where the checkpoint lies."""
        return self.checkpoint.parent if self.checkpoint else None


def untrained(config: "ModelConfig", resolution: int, classes: int = 1000) -> Subject:
    """The network of a config with random weights."""
    from mobilezoo.models import create_model

    return Subject(
        network=create_model(config, num_classes=classes).eval(),
        name=config.name,
        resolution=resolution,
        in_chans=3,
        preprocessing=config.preprocessing(),
        labels=(),
        dataset="",
        fresh=True,
        checkpoint=None,
    )


def load_subject(what: str, checkpoint: Path | None = None) -> Subject:
    """Resolve what the user named. Raises UnknownNameError, CheckpointError, ConfigError."""
    if what.endswith(".safetensors"):
        return _from_checkpoint(Path(what))
    if what.startswith("timm:"):
        return _from_timm(what.removeprefix("timm:"), checkpoint)
    from mobilezoo.models import create_model, load_model_config

    config = load_model_config(what)
    network = create_model(config, checkpoint=checkpoint).eval()
    return Subject(
        network=network,
        name=config.name,
        resolution=config.resolution,
        in_chans=3,
        preprocessing=config.preprocessing(),
        labels=(),
        dataset="",
        fresh=checkpoint is None,
        checkpoint=checkpoint,
    )


def _from_checkpoint(path: Path) -> Subject:
    from mobilezoo.models import create_model, recorded_config

    record = load_record_of(Checkpoint, path)
    config = recorded_config(record, path)
    network = create_model(
        config,
        checkpoint=path,
        num_classes=record.num_classes,
        in_chans=record.in_chans,
        probe_queries=record.probe_queries,
    ).eval()
    return Subject(
        network=network,
        name=config.name,
        resolution=record.resolution,
        in_chans=record.in_chans,
        preprocessing=record.preprocessing,
        labels=record.labels,
        dataset=record.dataset,
        fresh=False,
        checkpoint=path,
    )


def _from_timm(name: str, checkpoint: Path | None) -> Subject:
    import timm

    import mobilezoo  # noqa: F401  (its models join timm's registry)

    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())
    network = timm.create_model(name).eval()
    if checkpoint is not None:
        from mobilezoo.models.checkpoint import read_state_dict

        try:
            network.load_state_dict(read_state_dict(checkpoint))
        except RuntimeError as error:
            raise CheckpointError(
                f"{str(checkpoint)!r} does not fit timm:{name}: {str(error).splitlines()[1].strip()}"
            ) from error
    config = timm.data.resolve_model_data_config(network)
    channels, height, _width = config["input_size"]
    prep = Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )
    return Subject(network, name, height, channels, prep, (), "", checkpoint is None, checkpoint)
