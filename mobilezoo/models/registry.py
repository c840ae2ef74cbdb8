"""Names → networks: the zoo's YAML files, and their entry points in timm's registry."""

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Checkpoint
from mobilezoo.config import apply_overrides, config_names, config_root, find_config, is_yaml, read_yaml
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.models.base import ModelConfig, family_module

if TYPE_CHECKING:
    from torch import nn


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo's models that match a shell pattern."""
    return fnmatch.filter(config_names("models"), pattern)


def load_model_config(model: str | Path, overrides: tuple[str, ...] = ()) -> ModelConfig:
    """The config behind a name, an official alias or a YAML path. Raises ConfigError or UnknownNameError."""
    try:
        path = find_config("models", model)
    except UnknownNameError:
        path = _find_alias(str(model))
    data = apply_overrides(read_yaml(path), overrides)
    if "family" not in data:
        raise ConfigError(f"{path}: missing key 'family'")
    config_class: type[ModelConfig] = family_module(str(data["family"])).Config
    return config_class.parse({**data, "name": path.stem}, str(path))


def recorded_config(record: Checkpoint, weights: Path) -> ModelConfig:
    """The config of a checkpoint's network: by the recorded name, or the YAML beside the weights, or the recorded path.

    Raises ConfigError or UnknownNameError.
    """
    beside = weights.with_suffix(".yaml")
    if not (is_yaml(record.model) and beside.is_file()):
        return load_model_config(record.model)
    return load_model_config(beside).model_copy(update={"name": Path(record.model).stem})


def create_model(model: str | Path | ModelConfig, checkpoint: str | Path | None = None, **kwargs: Any) -> "nn.Module":
    """Build a network by zoo name, official alias, YAML path or config, in eval-agnostic fresh state.

    `checkpoint` takes an official or own file (see `mobilezoo.models.checkpoint.load_checkpoint`), `checkpoint_key` the
    dotted path of the weights in it where several fit; other arguments are timm's: `num_classes`, `in_chans`,
    `drop_rate`, `drop_path_rate`, `global_pool`, `features_only`, `out_indices`.
    `probe_queries` puts an efficient-probing head on the feature map (see `mobilezoo.models.probe`).
    Raises ConfigError, UnknownNameError, CheckpointError.
    """
    config = model if isinstance(model, ModelConfig) else load_model_config(model)
    pretrained, source = kwargs.pop("pretrained", False), kwargs.pop("pretrained_cfg", None)
    shared = isinstance(source, dict) and source.get("source") in ("hf-hub", "local-dir")
    if pretrained and not shared:
        raise ConfigError(f"{config.name}: the zoo hosts no weights: pass checkpoint=PATH with an official file")
    for ours in ("pretrained_cfg_overlay", "cache_dir", "scriptable", "exportable", "no_jit"):
        kwargs.pop(ours, None)
    reset_head, key = bool(kwargs.pop("reset_head", False)), kwargs.pop("checkpoint_key", None)
    if queries := kwargs.pop("probe_queries", 0):
        from mobilezoo.models.probe import build_probed

        return build_probed(config, checkpoint, queries, key=key, **kwargs)
    build = family_module(config.family).build
    network: nn.Module = build(config, **kwargs)
    if checkpoint is None and not pretrained:
        return network
    from mobilezoo.models.checkpoint import load_checkpoint, load_features

    features = kwargs.pop("features_only", False)
    kwargs.pop("out_indices", None)
    whole: nn.Module = build(config, **kwargs) if features else network
    if checkpoint is not None:
        load_checkpoint(whole, config, checkpoint, key=key, reset_head=reset_head)
    else:
        _load_shared(whole, source, **kwargs)
    if features:
        load_features(network, whole)
    return network


def _load_shared(network: "nn.Module", source: dict[str, Any], **kwargs: Any) -> None:
    """Weights that timm found for `hf-hub:OWNER/NAME` or `local-dir:FOLDER`, loaded as timm loads its own."""
    from timm.models import load_pretrained

    sizes = {key: kwargs[key] for key in ("num_classes", "in_chans") if key in kwargs}
    load_pretrained(network, pretrained_cfg=source, **sizes)


def register_with_timm() -> None:
    """Give every model of the zoo an entry point in timm's registry, unless timm has one of that name itself."""
    from timm.models import is_model, register_model

    for name in config_names("models"):
        if not is_model(name):
            register_model(_entrypoint(name))


def _entrypoint(name: str) -> Any:
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> "nn.Module":
        return create_model(name, pretrained=pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = f"The zoo's `{name}`, defined by configs/models/{name}.yaml."
    return entrypoint


def _find_alias(alias: str) -> Path:
    known = {}
    for name in config_names("models"):
        path = config_root() / "models" / f"{name}.yaml"
        known[name] = path
        for other in read_yaml(path).get("aliases", ()):
            known[other] = path
    if alias in known:
        return known[alias]
    raise UnknownNameError("model", alias, known)
