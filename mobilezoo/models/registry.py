"""Names → networks: the zoo's YAML files, and their entry points in timm's registry."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Checkpoint
from mobilezoo.config import apply_overrides, config_names, is_yaml, read_yaml
from mobilezoo.errors import ConfigError
from mobilezoo.models.base import TIMM, ModelConfig, family_module
from mobilezoo.models.bounds import check_numbers
from mobilezoo.models.yaml_files import model_file
from mobilezoo.resolution import Size
from mobilezoo.trust import require_no_places

if TYPE_CHECKING:
    from torch import nn

"""Before the name of a network that is timm's and not the zoo's."""
AS_DATA = "mobilezoo"
"""timm's name for any network of ours that comes with its config."""


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo's models that match a shell pattern."""
    return fnmatch.filter(config_names("models"), pattern)


def load_model_config(model: str | Path, overrides: tuple[str, ...] = ()) -> ModelConfig:
    """Read the config of a network.

    Args:
        model: zoo name, official alias, YAML path or `timm:NAME`.
        overrides: dotted settings such as `widths=[16, 32]`, applied to the YAML.

    Raises:
        UnknownNameError: no network has this name.
        ConfigError: the YAML or an override is wrong.
    """
    if str(model).startswith(TIMM):
        from mobilezoo.models.timm_network import config_data

        return parse_model_config(apply_overrides(config_data(str(model)), overrides), str(model), str(model))
    path = model_file(model)
    return parse_model_config(apply_overrides(read_yaml(path), overrides), path.stem, str(path))


def parse_model_config(data: Mapping[str, Any], name: str, source: str) -> ModelConfig:
    """Check a model YAML's data and make its family's config of it.

    Args:
        data: the YAML.
        name: the network's name.
        source: where the data comes from, for messages.

    Raises:
        UnknownNameError: there is no such family.
        ConfigError: a key or value is wrong.
    """
    if "family" not in data:
        raise ConfigError(f"{source}: missing key 'family'")
    check_numbers(data, source)
    config_class: type[ModelConfig] = family_module(str(data["family"])).Config
    return config_class.parse({**data, "name": name}, source)


def recorded_config(record: Checkpoint, weights: Path) -> ModelConfig:
    """The config of a checkpoint's network: by the recorded name, the YAML beside the weights, or the recorded path.

    Args:
        record: the checkpoint's record.
        weights: its weight file.

    Raises:
        UnknownNameError: no network has the recorded name.
        ConfigError: the YAML is missing or wrong.
    """
    beside = weights.with_suffix(".yaml")
    if not (is_yaml(record.model) and beside.is_file()):
        return load_model_config(record.model)
    return load_model_config(beside).model_copy(update={"name": Path(record.model).stem})


def create_model(model: str | Path | ModelConfig, checkpoint: str | Path | None = None, **kwargs: Any) -> "nn.Module":
    """Build a network in training mode, with random weights unless others are given.

    `checkpoint_key` is the dotted path of the weights in a file where several fit, `reset_head` leaves a classifier of
    another class count with its random weights, `probe_queries` puts an efficient-probing head on the feature map (see
    `mobilezoo.models.probe`). All other arguments are timm's.

    Args:
        model: zoo name, official alias, YAML path, `timm:NAME` or config.
        checkpoint: official or own file (see `mobilezoo.models.checkpoint.load_checkpoint`).
        kwargs: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`, `features_only`, `out_indices`,
            `pretrained` (True, or the tag of a published file), `pretrained_cfg` and all else that timm's factory
            takes (see `mobilezoo.models.factory`).

    Raises:
        UnknownNameError: no network has this name.
        ConfigError: config or arguments are wrong, or no network can be made of them.
        CheckpointError: the file cannot be read or does not fit.
    """
    config = model if isinstance(model, ModelConfig) else _built_as_published(load_model_config(model), kwargs)
    reset_head, key = bool(kwargs.pop("reset_head", False)), kwargs.pop("checkpoint_key", None)
    if checkpoint is not None and kwargs.get("pretrained"):
        raise ConfigError(f"{config.name}: weights come from {str(checkpoint)!r} or are pretrained: choose one")
    from mobilezoo.models.factory import FEATURES, build, load_features

    if queries := kwargs.pop("probe_queries", 0):
        from mobilezoo.models.probe import build_probed

        return build_probed(config, checkpoint, queries, key=key, **kwargs)
    network = build(config, **kwargs)
    if checkpoint is None:
        return network
    from mobilezoo.models.checkpoint import load_checkpoint

    features = kwargs.get("features_only", False)
    whole = build(config, **{k: v for k, v in kwargs.items() if k not in FEATURES}) if features else network
    load_checkpoint(whole, config, checkpoint, key=key, reset_head=reset_head)
    if features:
        load_features(network, whole)
    return network


def _built_as_published(config: ModelConfig, kwargs: Mapping[str, Any]) -> ModelConfig:
    """The config at the resolution of the published weights that the arguments name."""
    given = kwargs.get("pretrained_cfg")
    tag = kwargs.get("pretrained") if isinstance(kwargs.get("pretrained"), str) else given
    found = config.weights.get(tag) if isinstance(tag, str) else None
    return config.built_for(found.resolution) if found is not None and found.resolution is not None else config


def register_with_timm() -> None:
    """Give every model of the zoo an entry point in timm's registry, unless timm has one of that name itself.

    `mobilezoo` builds any network of ours from `config`, its YAML's data with a `name`.
    """
    from timm.models import is_model, register_model

    for name in config_names("models"):
        if not is_model(name):
            register_model(_entrypoint(name))
    register_model(_as_data)


def timm_has_another(name: str, network: "nn.Module", resolution: Size) -> bool:
    """Whether timm has, under the name of a zoo network, one that computes otherwise with the same weights.

    Args:
        name: the zoo network's name.
        network: the zoo network.
        resolution: (height, width) of the images compared.
    """
    import timm
    import torch

    if not timm.is_model(name) or not timm.models.model_entrypoint(name).__module__.startswith("timm."):
        return False
    ours: Any = network
    theirs = timm.create_model(name, num_classes=ours.num_classes, in_chans=ours.in_chans).eval()
    try:
        theirs.load_state_dict(network.state_dict())
    except RuntimeError:
        return True
    x_bchw = torch.randn(2, ours.in_chans, *resolution, generator=torch.Generator().manual_seed(0))
    was_training = network.training
    with torch.no_grad():
        same = torch.allclose(network.eval()(x_bchw), theirs(x_bchw), rtol=1e-4, atol=1e-5)
    network.train(was_training)
    return not same


def _as_data(pretrained: bool = False, *, config: Mapping[str, Any], **kwargs: Any) -> "nn.Module":
    """A network of ours by its config instead of a name: what a pushed network of a user's own is built from.

    Raises ConfigError where the config names code, unless `mobilezoo.trust.allow_commands()` was called.
    """
    require_no_places(config, "config")
    data = {key: value for key, value in config.items() if key != "name"}
    built_from = parse_model_config(data, str(config.get("name", AS_DATA)), "config")
    return create_model(built_from, pretrained=pretrained, **kwargs)


_as_data.__name__ = _as_data.__qualname__ = AS_DATA


def _entrypoint(name: str) -> Any:
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> "nn.Module":
        return create_model(name, pretrained=pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = f"The zoo's `{name}`, defined by configs/models/{name}.yaml."
    return entrypoint
