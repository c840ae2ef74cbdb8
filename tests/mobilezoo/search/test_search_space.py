"""The space of networks: points, model configs, architecture strings; MnasNet-A1 is in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilezoo.config import config_names, find_config, load_record, write_yaml
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.models import create_model, load_model_config
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.networks import (
    arch_strings,
    load_search_config,
    model_config,
    point_from_strings,
    point_of,
    timm_strings,
    yaml_data,
)
from mobilezoo.search.space import Point, Space
from mobilezoo.train.config import TrainConfig

TINY: dict[str, Any] = {
    "resolution": [32],
    "stem": 8,
    "head": 16,
    "network": {"activation": "relu"},
    "stages": [
        {"stride": 1, "block": ["ds"], "kernel": [3], "attention": ["none", "se"], "width": [8], "depth": [1]},
        {"stride": 2, "block": ["cn", "ir"], "kernel": [3, 5], "expansion": [2, 3], "width": [8, 16], "depth": [1, 2]},
    ],
}


def tiny(**changes: Any) -> Space:
    return Space.parse({**TINY, **changes}, "tiny.yaml")


def test_every_network_of_a_small_space_is_counted_once_and_comes_back_from_its_genome() -> None:
    space = tiny()
    points = list(space.points())
    assert len(points) == len(set(points)) == space.count() == 2 * (2 * 2 * 2 * (1 + 2))
    assert all(space.point(space.genome(point)) == point for point in points)


def test_every_network_of_a_small_space_comes_back_from_its_model_config_and_yaml(tmp_path: Path) -> None:
    space = tiny(network={"activation": "relu", "drop_rate": 0.1})
    for point in space.points():
        assert point_of(space, model_config(space, point, "x")) == point
    path = write_yaml(tmp_path / "net.yaml", yaml_data(space, point))
    assert point_of(space, load_model_config(path)) == point


def test_every_network_of_a_small_space_comes_back_from_its_architecture_strings() -> None:
    space = tiny()
    strings = set()
    for point in space.points():
        found = timm_strings(point)
        assert found is not None
        assert point_from_strings(space, found, 32) == point
        strings.add(found)
    assert len(strings) == space.count()


def test_attention_that_timm_cannot_name_has_no_timm_string() -> None:
    space = load_search_config("digits").space
    point = space.smallest()
    stages = (point.stages[0].model_copy(update={"attention": "coord"}), *point.stages[1:])
    other = point.model_copy(update={"stages": stages})
    assert other in space
    assert timm_strings(other) is None
    assert arch_strings(other)[0].endswith("_coord")


def test_mnasnet_a1_is_a_point_and_builds_the_zoos_network() -> None:
    space = load_search_config("mnasnet").space
    official = load_model_config("mnasnet_a1")
    point = point_of(space, official)
    torch.manual_seed(0)
    ours = create_model(model_config(space, point, "found")).eval()
    theirs = create_model("mnasnet_a1").eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert timm_strings(point) == (
        "ds_r1_k3_s1_c16_noskip",
        "ir_r2_k3_s2_e6_c24",
        "ir_r3_k5_s2_e3_c40_se0.25",
        "ir_r4_k3_s2_e6_c80",
        "ir_r2_k3_s1_e6_c112_se0.25",
        "ir_r3_k5_s2_e6_c160_se0.25",
        "ir_r1_k3_s1_e6_c320",
    )


def test_a_network_outside_the_space_is_named() -> None:
    space = load_search_config("mnasnet").space
    with pytest.raises(ConfigError, match=r"mnasnet_d1: not a point of the space: s0.block = 'ir'"):
        point_of(space, load_model_config("mnasnet_d1"))
    with pytest.raises(ConfigError, match=r"mnasnet_a1_075: .* width_multiplier = 0.75, the space has 1.0"):
        point_of(space, load_model_config("mnasnet_a1_075"))
    with pytest.raises(ConfigError, match="family shvit"):
        point_of(space, load_model_config("shvit_s1"))


@pytest.mark.parametrize("name", config_names("search"))
def test_every_shipped_search_trains_by_a_recipe_that_exists(name: str) -> None:
    config = load_search_config(name, ["data.source=folder:~/images"])
    recipe = load_record(TrainConfig, find_config("train", config.recipe), config.recipe_overrides)
    assert recipe.data.source == "folder:~/images"


def test_changes_of_the_recipe_join_those_of_the_yaml_and_images_stay_for_later_trainings() -> None:
    plain = load_search_config("attention").recipe_overrides
    changed = load_search_config("attention", ["trials=3", "data.source=folder:~/clothing", "train.epochs=2"])
    assert changed.trials == 3
    assert changed.recipe_overrides == (*plain, "data.source=folder:~/clothing", "train.epochs=2")
    assert changed.images == ("data.source=folder:~/clothing",)


@pytest.mark.parametrize("name", config_names("search"))
def test_sampled_networks_of_every_shipped_space_run(name: str) -> None:
    space = load_search_config(name).space
    rng = np.random.default_rng(0)
    points = [space.smallest(), *(space.sample(rng) for _ in range(3))]
    points.append(space.crossover(points[1], space.mutate(points[2], rng), rng))
    for point in points:
        assert point in space
        network = create_model(model_config(space, point, "sampled"), num_classes=10).eval()
        pixels = 64  # any size runs; the smallest keeps this quick
        with torch.no_grad():
            assert network(torch.zeros(1, 3, pixels, pixels)).shape == (1, 10)


def test_the_smallest_network_has_the_fewest_multiply_adds() -> None:
    from fvcore.nn import FlopCountAnalysis

    def macs_of(point: Point) -> float:
        analysis = FlopCountAnalysis(create_model(model_config(space, point, "x")).eval(), torch.zeros(1, 3, 32, 32))
        return float(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())

    space = tiny()
    macs = {point: macs_of(point) for point in space.points()}
    assert macs[space.smallest()] == min(macs.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": []}, "the space is empty"),
        ({"stages": []}, "the space is empty"),
        ({"resolution": [2]}, "at least the total stride 4, got 2"),
        ({"stages": [{"stride": 1, "block": [], "width": [8], "depth": [1]}]}, "choice for 'block'"),
        ({"stages": [{"stride": 1, "block": ["ir"], "width": [8], "depth": [1]}]}, "ratios in 'expansion'"),
        ({"stages": [{"stride": 1, "block": ["ds"], "expansion": [3], "width": [8], "depth": [1]}]}, "no 'expansion'"),
        ({"stages": [{"stride": 1, "block": ["cn"], "attention": ["se"], "width": [8], "depth": [1]}]}, "no 'att"),
        ({"stages": [{"stride": 1, "block": ["ds"], "kernel": [4], "width": [8], "depth": [1]}]}, "kernel sizes out"),
        ({"stages": [{"stride": 1, "block": ["ds"], "width": [8, 8], "depth": [1]}]}, "listed twice"),
        ({"stages": [{"stride": 1, "block": ["ds"], "widths": [8], "depth": [1]}]}, "did you mean stages.0.width"),
    ],
)  # fmt: skip
def test_empty_and_contradictory_spaces_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.network.activation=rellu", "activation = 'rellu'"),
        ("space.network.stem=9", "space.network.stem: set by the space itself"),
        (
            "space.stages=[{stride: 1, block: [ds], attention: [sea], width: [8], depth: [1]}]",
            "unknown attention 'sea': did you",
        ),
        (
            "space.stages=[{stride: 1, block: [ds], attention: [halo], width: [8], depth: [1]}]",
            "stage 0: attention halo needs a multiple of 8 channels, got 12",
        ),
        ("engine=evolutoin", "unknown engine 'evolutoin': did you mean evolution"),
        ("goal=front", "an engine that seeks a front"),
    ],
)
def test_a_search_config_that_builds_no_network_is_refused(override: str, message: str) -> None:
    more = {"goal=front": ["engine=ppo"], "halo": ["space.stem=12"]}
    extra = next((values for part, values in more.items() if part in override), [])
    with pytest.raises(MobilezooError, match=message):
        load_search_config("digits", [override, *extra])


def test_spaces_differ_by_their_hash() -> None:
    assert tiny().sha256 == tiny().sha256 != tiny(stem=16).sha256
    assert isinstance(load_record(SearchConfig, "configs/search/digits.yaml"), SearchConfig)
    assert isinstance(tiny().smallest(), Point)
