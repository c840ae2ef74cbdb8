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
from mobilezoo.models.published.choose import Published, choose
from mobilezoo.models.published.load import load_published
from mobilezoo.models.scale import is_allocation, within_memory
from mobilezoo.models.weights import channels_of, classes_of, official_to_ours

SOURCES = ("url", "file", "state_dict", "hf_hub_id")
LAYER_SETTINGS = ("scriptable", "exportable", "no_jit")
PLACEMENT = ("device", "dtype")
LABELS = 1000
"""Classes of published weights: ImageNet-1k's."""
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
    pretrained: bool | str = False,
    pretrained_cfg: Given = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pretrained_model_args: Mapping[str, Any] | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    family = family_module(config.family)
    if config.family == "timm":
        tag = pretrained if isinstance(pretrained, str) else pretrained_cfg
        weights = {"pretrained": bool(pretrained), "pretrained_cfg": tag, "cache_dir": cache_dir}
        timms: nn.Module = family.build(config, pretrained_cfg_overlay=pretrained_cfg_overlay, **weights, **kwargs)
        return timms
    one = published_for(config, pretrained, pretrained_cfg, pretrained_cfg_overlay)
    given, overlay = _given(one, pretrained_cfg), dict(pretrained_cfg_overlay or {})
    placement = {key: kwargs.pop(key) for key in PLACEMENT if key in kwargs}
    settings = {key: kwargs.pop(key, None) for key in LAYER_SETTINGS}
    kwargs = {**_sizes({**given, **overlay}), **{k: v for k, v in kwargs.items() if v is not None}}
    with set_layer_config(**settings):
        network = _network(family, config, kwargs)
        features = bool(kwargs.get("features_only"))
        plain = {k: v for k, v in kwargs.items() if k not in FEATURES}
        if one is not None and pretrained and plain.get("num_classes") == 0:
            plain["num_classes"] = LABELS  # official names are matched with all of the network
        whole = _network(family, config, plain) if pretrained and (features or plain != kwargs) else network
    cfg = _resolved(config, whole, given, overlay)
    if pretrained:
        if one is not None:
            load_published(whole, one)
        else:
            _load(whole, config, cfg, 0 if features else classes_of(whole), cache_dir)
        if whole is not network:
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


def published_for(
    config: ModelConfig, pretrained: bool | str, given: Given, overlay: Mapping[str, Any] | None = None
) -> Published | None:
    """Choose the published weights that arguments of timm stand for.

    Args:
        config: the network.
        pretrained: whether weights are loaded, or the tag of those that are.
        given: timm's `pretrained_cfg`: a tag, or the description of other weights.
        overlay: timm's `pretrained_cfg_overlay`.

    Returns:
        None where they stand for none, or name a file or an address themselves.

    Raises:
        WeightsError: there are none, or none of this tag.
    """
    if isinstance(pretrained, str) or (isinstance(given, str) and given):
        return choose(config, pretrained if isinstance(pretrained, str) else str(given))
    described = dataclasses.asdict(given) if isinstance(given, PretrainedCfg) else dict(given or {})
    named = any({**described, **(overlay or {})}.get(key) for key in SOURCES)
    return choose(config) if pretrained and not named else None


def _given(one: Published | None, given: Given) -> dict[str, Any]:
    """What is described of the weights: by the caller, or by the record of published ones."""
    if one is not None:
        size = (3, *one.resolution)
        about = {"tag": one.tag, "origin_url": one.file.address, "license": one.file.license, "input_size": size}
        return {**one.config.pretrained_cfg(), **one.preprocessing().to_timm(), **about}
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
