"""timm's factory arguments for the zoo's networks: what `timm.create_model` passes on means here what it means there.

That is: `pretrained` weights from a file, an address, the hub or a folder; `pretrained_cfg`, which describes them and
gives the defaults of `num_classes`, `in_chans` and `global_pool`; `pretrained_cfg_overlay`, which changes single fields
of it; `cache_dir`; `device` and `dtype`. Families build the bare network, whatever they add to timm's classes included,
and weights come after.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from timm.layers import set_layer_config
from timm.models import load_pretrained, resolve_pretrained_cfg
from timm.models._builder import pretrained_cfg_for_features
from timm.models._pretrained import PretrainedCfg
from torch import nn

from mobilezoo.errors import ConfigError, MobilezooError, first_line
from mobilezoo.models.base import ModelConfig, family_module
from mobilezoo.models.scale import is_allocation, within_memory
from mobilezoo.models.weights import channels_of, classes_of, official_to_ours

SOURCES = ("url", "file", "state_dict", "hf_hub_id")
LAYER_SETTINGS = ("scriptable", "exportable", "no_jit")
PLACEMENT = ("device", "dtype")
FEATURES = ("features_only", "out_indices", "feature_cls")

Given: TypeAlias = "str | Mapping[str, Any] | PretrainedCfg | None"


def build(config: ModelConfig, **kwargs: Any) -> nn.Module:
    """Build the network of a config as timm's factory would.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`, and those of the module's docstring.

    Raises:
        ConfigError: no network can be made of the numbers, it is larger than this machine's memory, or there are no
            weights for `pretrained`.
    """
    with within_memory(config.name):
        return _built(config, **kwargs)


def _built(
    config: ModelConfig,
    *,
    pretrained: bool = False,
    pretrained_cfg: Given = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pretrained_model_args: Mapping[str, Any] | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    family = family_module(config.family)
    if config.family == "timm":
        weights = {"pretrained": pretrained, "pretrained_cfg": pretrained_cfg, "cache_dir": cache_dir}
        timms: nn.Module = family.build(config, pretrained_cfg_overlay=pretrained_cfg_overlay, **weights, **kwargs)
        return timms
    given, overlay = _given(config, pretrained_cfg), dict(pretrained_cfg_overlay or {})
    placement = {key: kwargs.pop(key) for key in PLACEMENT if key in kwargs}
    settings = {key: kwargs.pop(key, None) for key in LAYER_SETTINGS}
    kwargs = {**_sizes({**given, **overlay}), **{k: v for k, v in kwargs.items() if v is not None}}
    with set_layer_config(**settings):
        network = _network(family, config, kwargs)
        features = bool(kwargs.get("features_only"))
        plain = {k: v for k, v in kwargs.items() if k not in FEATURES}
        whole = _network(family, config, plain) if features and pretrained else network
    cfg = _resolved(config, whole, given, overlay)
    if pretrained:
        _load(whole, config, cfg, 0 if features else classes_of(whole), cache_dir)
        if features:
            load_features(network, whole)
    described: Any = network
    described.pretrained_cfg = described.default_cfg = pretrained_cfg_for_features(cfg) if features else cfg
    described.pretrained_model_args = dict(pretrained_model_args or {})
    return network.to(**placement) if placement else network


def _network(family: Any, config: ModelConfig, kwargs: Mapping[str, Any]) -> nn.Module:
    """What a family builds. Raises ConfigError for numbers that no layers can be made of."""
    try:
        network: nn.Module = family.build(config, **kwargs)
    except MobilezooError:
        raise
    except (ArithmeticError, RuntimeError, ValueError, IndexError) as error:  # whatever PyTorch and timm raise
        if is_allocation(error):
            raise
        raise ConfigError(f"{config.name}: no network can be made of its numbers: {first_line(error)}") from error
    return network


def load_features(features: nn.Module, whole: nn.Module) -> None:
    """Copy weights between two forms of one network, whose modules timm names differently.

    Args:
        features: network built with `features_only`, changed in place.
        whole: the same network with its classifier.
    """
    weights = {_flat(key): value for key, value in whole.state_dict().items()}
    features.load_state_dict({key: weights[_flat(key)] for key in features.state_dict()})


def _given(config: ModelConfig, given: Given) -> dict[str, Any]:
    if isinstance(given, str) and given:
        raise ConfigError(f"{config.name} has no pretrained tag {given!r}: the zoo hosts no weights, leave the tag out")
    if isinstance(given, PretrainedCfg):
        return dataclasses.asdict(given)
    return dict(given) if isinstance(given, Mapping) else {}


def _sizes(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that the description of weights gives, unless they are given themselves."""
    sizes = {key: cfg[key] for key in ("num_classes", "global_pool") if cfg.get(key) is not None}
    if cfg.get("input_size"):
        sizes["in_chans"] = cfg["input_size"][0]
    return sizes if sizes.get("num_classes", 0) >= 0 else {k: v for k, v in sizes.items() if k != "num_classes"}


def _resolved(
    config: ModelConfig, network: nn.Module, given: Mapping[str, Any], overlay: Mapping[str, Any]
) -> dict[str, Any]:
    """The description of the weights; what a given one leaves out of the network's structure comes from the network."""
    own: Any = network.pretrained_cfg
    structure = {key: own.get(key) for key in ("first_conv", "classifier")}
    base = {**given, **{k: v for k, v in structure.items() if not given.get(k)}} if given else dict(own)
    try:
        cfg: dict[str, Any] = resolve_pretrained_cfg(config.name, base, dict(overlay)).to_dict()
    except TypeError as error:
        raise ConfigError(f"{config.name}: pretrained_cfg: {error}") from None
    return cfg


def _load(network: nn.Module, config: ModelConfig, cfg: dict[str, Any], classes: int, cache_dir: str | None) -> None:
    """As timm loads its own, official names of tensors included."""
    if not any(cfg.get(key) for key in SOURCES):
        raise ConfigError(f"{config.name}: the zoo hosts no weights: pass checkpoint=PATH with an official file")
    load_pretrained(
        network,
        pretrained_cfg=cfg,
        num_classes=classes,
        in_chans=channels_of(network),
        filter_fn=lambda state, model: official_to_ours(model, config, state),
        cache_dir=cache_dir,
    )


def _flat(key: str) -> str:
    """The same for `stages.0.conv`, `stages_0.conv` and `model.stages.0.conv`."""
    return key.removeprefix("model.").replace(".", "_")
