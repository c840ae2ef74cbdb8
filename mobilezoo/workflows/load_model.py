"""Loads the network that a command is given: a zoo name, a model YAML, a checkpoint of ours, or any timm model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Artifact, Checkpoint, Origin, has_record, load_record_of, read_record_of
from mobilezoo.config import is_yaml
from mobilezoo.data.config import DataConfig, recorded_data
from mobilezoo.errors import CheckpointError, ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, as_size
from mobilezoo.workflows.model_options import ModelOptions

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo.models.base import ModelConfig

WEIGHTS = (".pth", ".pt", ".tar", ".ckpt", ".bin")
"""Endings of other projects' checkpoints, which have no record."""


@dataclass
class LoadedModel:
    """A network in eval mode with all that its files need to carry."""

    network: "nn.Module"
    name: str
    resolution: Size
    in_chans: int
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    data: DataConfig | None
    """What it was trained on; None where that is not recorded."""
    random_weights: bool
    """True where the weights are random: fine for latency, meaningless for accuracy."""
    checkpoint: Path | None
    """Where the weights came from."""
    checkpoint_key: str | None = None
    """Dotted path of the weights in it, where one was named."""
    origin: Origin | None = None
    """Published weights that these are, or were trained from."""
    fetched: bool = False
    """Whether the checkpoint lies in the cache of published weights."""

    @property
    def folder(self) -> Path | None:
        """Where the checkpoint lies, as far as files may be written beside it."""
        return self.checkpoint.parent if self.checkpoint and not self.fetched else None


def with_random_weights(config: "ModelConfig", resolution: int | Size, classes: int = 1000) -> LoadedModel:
    """The network of a config with random weights.

    Args:
        config: the network.
        resolution: (height, width), or the side of a square.
        classes: outputs of the classifier.
    """
    from mobilezoo.models import create_model

    return LoadedModel(
        network=create_model(config, num_classes=classes).eval(),
        name=config.name,
        resolution=as_size(resolution),
        in_chans=3,
        preprocessing=config.preprocessing(),
        labels=(),
        data=None,
        random_weights=True,
        checkpoint=None,
    )


def load_model(what: str, options: ModelOptions | None = None) -> LoadedModel:
    """Load a network by name, with its weights where there are any.

    Args:
        what: zoo name, model YAML, checkpoint of ours (.safetensors), or `timm:NAME`.
        options: changes to what the record or the config has; None changes nothing.

    Raises:
        UnknownNameError: no network is called that.
        CheckpointError: the weights do not fit the network.
        ConfigError: options contradict the file or the network.
    """
    from mobilezoo.models import load_model_config, recorded_config

    options = options or ModelOptions()
    if what.endswith(".safetensors"):
        weights, record = Path(what), load_record_of(Checkpoint, what)
        if options.checkpoint is not None or options.pretrained:
            given = "--pretrained" if options.pretrained else "--checkpoint"
            raise ConfigError(f"{what!r} is a checkpoint itself: leave {given} out")
        return _assembled(recorded_config(record, weights), weights, record, options)
    if Path(what).suffix in WEIGHTS:
        raise ConfigError(f"{what!r} does not say which network it is of: name that, and add --checkpoint {what}")
    refuse_exported(what)
    config, path = load_model_config(what), options.checkpoint
    if options.pretrained:
        return _pretrained(config, options)
    return _assembled(config, path, _own_record(config, path) if path else None, options)


def _pretrained(config: "ModelConfig", options: ModelOptions) -> LoadedModel:
    """A network with published weights: ours of the authors' file, timm's of timm's own."""
    if options.checkpoint is not None:
        raise ConfigError(f"{config.name}: --checkpoint PATH or --pretrained, not both")
    if config.family == "timm":
        return _assembled(config, None, None, options)
    from mobilezoo.models.published.choose import choose
    from mobilezoo.models.published.fetch import fetch
    from mobilezoo.models.published.origin import origin

    one = choose(config, options.pretrained)
    found = fetch(one)
    at = options.model_copy(update={"key": found.key, "resolution": options.resolution or one.resolution})
    own = config.model_copy(update=one.preprocessing().model_dump())
    loaded = _assembled(own, found.path, None, at)
    loaded.origin, loaded.fetched = origin(one), True
    return loaded


def refuse_exported(what: str) -> None:
    """Raise ConfigError for a file that came out of an export, which holds no network that PyTorch could take."""
    from mobilezoo_export.registry import is_exported

    if is_exported(what) and not is_yaml(what):
        path = Path(what).expanduser()
        if not path.exists():
            raise ConfigError(f"file not found: {what!r}")
        raise ConfigError(
            f"{what!r} is an exported file already: eval, predict and profile take it; export takes the network it was "
            f"made of, {_origin(path)}"
        )


def _origin(path: Path) -> str:
    """What an exported file was made of, as far as its record names it."""
    if has_record(path):
        record = read_record_of(Artifact, path)
        if record.checkpoint and (weights := path.parent / record.checkpoint).is_file():
            return f"here {os.path.relpath(weights)!r}"
        return f"here {record.model!r}"
    return "by name, YAML or checkpoint (.safetensors)"


def _own_record(config: "ModelConfig", path: Path) -> Checkpoint | None:
    """The record beside weights of ours, which describes them better than a name. Raises CheckpointError."""
    from mobilezoo.models import recorded_config

    if path.suffix != ".safetensors" or not has_record(path):
        return None
    record = load_record_of(Checkpoint, path)
    theirs = recorded_config(record, path)
    if theirs.model_dump(exclude={"name"}) != config.model_dump(exclude={"name"}):
        raise CheckpointError(f"{str(path)!r} holds {theirs.name}, not {config.name}")
    return record


def _assembled(
    config: "ModelConfig", path: Path | None, record: Checkpoint | None, options: ModelOptions
) -> LoadedModel:
    """The network in its size, with its files' metadata: from the options, else the record, else the config."""
    from mobilezoo.models.convert import network_of_file
    from mobilezoo.models.fits import check_input
    from mobilezoo.models.scale import check_activations
    from mobilezoo.models.weights import channels_of, classes_of

    resolution = options.resolution or (record.resolution if record else config.resolution)
    config = config.built_for(resolution)
    args = record.network_args() if record else {}
    args |= {"num_classes": options.num_classes, "in_chans": options.in_chans}
    network = network_of_file(config, path, key=options.key, **args) if path else _created(config, options, args)
    channels, known = channels_of(network), record.preprocessing if record else config.preprocessing()
    check_activations(network, config.name, (channels, *resolution))
    if options.resolution or options.in_chans:
        check_input(network, config.name, (channels, *resolution))
    labels = options.labels or (record.labels if record else ())
    if labels and len(labels) != classes_of(network):
        raise ConfigError(f"{len(labels)} labels for the {classes_of(network)} classes of {config.name}: see --labels")
    return LoadedModel(
        network=network.eval(),
        name=config.name,
        resolution=resolution,
        in_chans=channels,
        preprocessing=options.preprocessing(known, channels),
        labels=labels,
        data=recorded_data(record) if record else None,
        random_weights=path is None and not options.pretrained,
        checkpoint=path,
        checkpoint_key=options.key,
        origin=record.origin if record else None,
    )


def _created(config: "ModelConfig", options: ModelOptions, args: dict[str, Any]) -> "nn.Module":
    """A network without a file: with random weights, or one of timm's with timm's."""
    from mobilezoo.models import create_model

    weights: dict[str, Any] = {"pretrained": options.pretrained} if options.pretrained else {}
    return create_model(config, **weights, **args)
