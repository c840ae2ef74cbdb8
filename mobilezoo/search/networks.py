"""Converts points of a search space to and from model configs (family mbconv) and timm's architecture strings."""

import itertools
from collections.abc import Sequence
from typing import Any

from mobilezoo.config import apply_overrides, find_config, read_yaml
from mobilezoo.errors import ConfigError, first_line
from mobilezoo.models.base import FREE, ModelConfig, family_module
from mobilezoo.models.notation import stage_string
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.space import Point, Space
from mobilezoo.search.stages import MIXERS, Stage

FAMILY = "mbconv"
OWN = ("family", "name", "resolution", "stem", "head", "stages")
"""Keys of a model config that the point or the space sets."""
RECIPE_KEYS = ("data", "train", "model_args")
"""Groups that only a training config has: overrides of their keys apply to the recipe."""


def load_search_config(name: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Loads a search config and checks that its networks can be built.

    Args:
        name: path or bare name.
        overrides: dotted overrides; those of the recipe's keys (`train.epochs=5`) are added to `recipe_overrides`.

    Raises:
        ConfigError: a key or value is wrong, or no network can be built from the space.
        UnknownNameError: no config has the bare name.
    """
    path = find_config("search", name)
    of_recipe = [item for item in overrides if item.partition("=")[0].partition(".")[0] in RECIPE_KEYS]
    data = apply_overrides(read_yaml(path), [item for item in overrides if item not in of_recipe])
    if of_recipe:
        data["recipe_overrides"] = [*data.get("recipe_overrides", ()), *of_recipe]
    config = SearchConfig.parse({"name": path.stem, **data}, str(path))
    check_space(config.space, str(path))
    return config


def check_space(space: Space, source: str) -> None:
    """Checks that the shared keys and every choice of a space give a valid model config.

    Args:
        space: the space.
        source: its file, for error messages.

    Raises:
        ConfigError: a key or a choice is wrong.
    """
    clash = sorted(set(space.network) & {*OWN, *FREE})
    if clash:
        raise ConfigError(f"{source}: space.network.{clash[0]}: set by the space itself, not here")
    smallest = space.smallest()
    model_config(space, smallest, "smallest", f"{source}: space.network")
    for number, choices in enumerate(space.stages):
        for attention in choices.attention:
            if attention != "none":
                stage = smallest.stages[number].model_copy(
                    update={"block": "ds", "expansion": 1.0, "attention": attention}
                )
                point = smallest.model_copy(update={"stages": (stage,)})
                model_config(space, point, "attention", f"{source}: stage {number}")
    _check_channels(space, source)


def _check_channels(space: Space, source: str) -> None:
    """Checks that every attention takes the channels of every block that it may stand in. Raises ConfigError."""
    if space.network.get("width_multiplier", 1) != 1:
        return  # widths are the network's to round; it refuses what does not fit
    import torch
    from timm.layers import make_divisible

    from mobilezoo.layers.attention import create_attention

    before: tuple[int, ...] = (space.stem,)
    for number, choices in enumerate(space.stages):
        inputs = {*before, *(choices.width if max(choices.depth) > 1 else ())}
        wide = {chs * e for chs in inputs for e in choices.expansion}
        channels = {"ds": inputs, "ir": {int(chs) for chs in wide}, "er": {make_divisible(chs) for chs in wide}}
        met = sorted({count for block in choices.block for count in channels.get(block, ())})
        for attention, count in itertools.product(choices.attention, met):
            try:
                with torch.device("meta"):
                    create_attention(attention, count)
            except (ConfigError, ValueError) as error:
                raise ConfigError(f"{source}: stage {number}: {first_line(error)}") from None
        before = choices.width


def model_config(space: Space, point: Point, name: str, source: str | None = None) -> ModelConfig:
    """Builds the model config of a point.

    Args:
        space: the space.
        point: a point of it.
        name: name of the network.
        source: its file, for error messages; None takes the name.

    Raises:
        ConfigError: the space's shared keys are wrong.
    """
    data = {"family": FAMILY, "name": name, **yaml_data(space, point)}
    config: ModelConfig = family_module(FAMILY).Config.parse(data, source or f"point {name}")
    return config


def yaml_data(space: Space, point: Point) -> dict[str, Any]:
    """Returns the content of a point's model YAML as plain data.

    Args:
        space: the space.
        point: a point of it.
    """
    stages = [_stage_data(stage) for stage in point.stages]
    own = {"resolution": point.resolution, "stem": space.stem, "stages": stages, "head": space.head}
    return {"family": FAMILY, **own, **space.network}


def _stage_data(stage: Stage) -> dict[str, Any]:
    """Returns a stage's keys, those with the block's defaults left out."""
    if stage.block in MIXERS:
        return {"block": stage.block, "depth": stage.depth, "stride": stage.stride, "width": stage.width}
    data: dict[str, Any] = {"block": stage.block, "depth": stage.depth, "kernel": stage.kernel, "stride": stage.stride}
    if stage.expansion != 1:
        data["expansion"] = stage.expansion
    data["width"] = stage.width
    if stage.attention != "none":
        data["attention"] = stage.attention
    return data if stage.skip else {**data, "skip": False}


def point_of(space: Space, config: ModelConfig) -> Point:
    """Finds the point that builds the same network as a model config.

    Args:
        space: the space.
        config: a network of any family.

    Raises:
        ConfigError: the network is not in the space; the message names the first difference.
    """
    if config.family != FAMILY:
        raise ConfigError(f"{config.name}: not a point of the space: family {config.family}, the space builds {FAMILY}")
    data = config.model_dump(mode="json")
    height, width = config.resolution
    if height != width:
        raise ConfigError(f"{config.name}: not a point of the space: {height}x{width} pixels, spaces have squares")
    point = Point(resolution=height, stages=tuple(_stage_of(stage, config.name) for stage in data["stages"]))
    try:
        space.genome(point)
    except ConfigError as error:
        raise ConfigError(f"{config.name}: {error}") from None
    ours = model_config(space, point, config.name).model_dump(mode="json")
    for key in sorted(data.keys() - set(FREE)):
        if data[key] != ours[key]:
            raise ConfigError(
                f"{config.name}: not a point of the space: {key} = {data[key]!r}, the space has {ours[key]!r}"
            )
    return point


def _stage_of(data: dict[str, Any], name: str) -> Stage:
    return Stage.parse({key: data[key] for key in Stage.model_fields}, f"{name}: stage")


def arch_strings(point: Point) -> tuple[str, ...]:
    """Formats the stages in timm's notation, extended by `_NAME` for attention and a leading name for mixers."""
    return tuple(_stage_string(stage) for stage in point.stages)


def _stage_string(stage: Stage) -> str:
    text = stage_string(stage)
    return text if stage.attention in ("none", "se") else f"{text}_{stage.attention}"


def timm_strings(point: Point) -> tuple[str, ...] | None:
    """Formats the stages in timm's notation; None where it has no term for a stage's attention or mixer."""
    odd = any(stage.attention not in ("none", "se") or stage.block in MIXERS for stage in point.stages)
    return None if odd else arch_strings(point)


def point_from_strings(space: Space, strings: Sequence[str], resolution: int) -> Point:
    """Parses timm's architecture strings.

    Args:
        space: the space.
        strings: one per stage.
        resolution: input height and width in pixels.

    Raises:
        ConfigError: a string cannot be parsed, or the point is not in the space.
    """
    parse = family_module(FAMILY).parse_stage
    stages = tuple(_stage_of(parse(text).model_dump(mode="json"), text) for text in strings)
    point = Point(resolution=resolution, stages=stages)
    space.genome(point)
    return point
