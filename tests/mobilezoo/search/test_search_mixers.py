"""Stages of other families' blocks: their choices against brute force, their networks from YAML to file."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilezoo.config import write_yaml
from mobilezoo.errors import ConfigError
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.fuse import fuse
from mobilezoo.models.mixers import create_mixers
from mobilezoo.report.picture import architecture_svg, describe
from mobilezoo.search.networks import arch_strings, model_config, point_of, timm_strings, yaml_data
from mobilezoo.search.space import Point, Space
from mobilezoo.search.stages import MIXERS, PLAIN, Stage
from mobilezoo.workflows.latency_blocks import _pieces, block_keys

DATA: dict[str, Any] = {
    "resolution": [32],
    "stem": 8,
    "head": 16,
    "network": {"activation": "relu"},
    "stages": [
        {"stride": 2, "block": ["ds"], "kernel": [3], "width": [8], "depth": [1]},
        {"stride": 2, "block": ["ir", "shvit", "emov2"], "kernel": [3, 5], "expansion": [2, 3], "depth": [1, 2],
         "attention": ["none", "se"], "skip": [True, False], "width": [16, 24]},
        {"stride": 1, "block": ["cas_vit", "mobilemamba"], "width": [24], "depth": [1]},
    ],
}  # fmt: skip
SPACE = Space.parse(DATA, "mixers.yaml")


def brute_force() -> set[Point]:
    """All values of all choices of the middle stage, plain where the block leaves none; duplicates fall together."""
    first, middle, last = SPACE.stages
    found = set()
    options = (middle.block, middle.kernel, middle.expansion, middle.attention, middle.skip, middle.width, middle.depth)
    for block, kernel, expansion, attention, skip, width, depth in itertools.product(*options):
        chosen = {"kernel": kernel, "expansion": expansion, "attention": attention, "skip": skip}
        own = PLAIN if block in MIXERS else chosen
        stage = Stage(block=block, stride=2, width=width, depth=depth, **own)
        for mixer in last.block:
            end = Stage(block=mixer, stride=1, width=24, depth=1, **PLAIN)
            begin = Stage(block="ds", stride=2, width=8, depth=1, **PLAIN)
            found.add(Point(resolution=32, stages=(begin, stage, end)))
    assert first.width == (8,)
    return found


ALL = brute_force()


def test_points_are_counted_and_enumerated_as_by_brute_force() -> None:
    listed = list(SPACE.points())
    assert len(listed) == len(set(listed)) == SPACE.count() == len(ALL) == 2 * (64 + 2 * 4)
    assert set(listed) == ALL
    assert all(SPACE.point(SPACE.genome(point)) == point for point in ALL)


def differing(a: Point, b: Point) -> int:
    """Genes that both have and that differ."""
    one, other = SPACE.genome(a), SPACE.genome(b)
    return sum(one[name] != other[name] for name in one.keys() & other.keys())


def test_sampling_mutation_crossover_and_neighbors_stay_among_them() -> None:
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(1500)]
    assert set(drawn) == ALL
    for mother, father in itertools.pairwise(drawn[:200]):
        assert SPACE.crossover(mother, father, rng) in ALL
        near = list(SPACE.neighbors(mother))
        assert len(near) == len(set(near))
        assert SPACE.mutate(mother, rng) in set(near) <= ALL
        assert set(near) == {other for other in ALL if differing(mother, other) == 1}


def test_every_network_comes_back_from_its_config_and_has_no_timm_string() -> None:
    for point in ALL:
        assert point_of(SPACE, model_config(SPACE, point, "x")) == point
        assert timm_strings(point) is None
        assert arch_strings(point)[2].startswith(("cas_vit_r1", "mobilemamba_r1"))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("pixels", [32, 72])
def test_a_stage_of_mixers_trains_from_its_yaml(mixer: str, pixels: int, tmp_path: Path) -> None:
    stages = [DATA["stages"][0], {"stride": 2, "block": [mixer], "width": [32], "depth": [2]}]
    space = Space.parse({**DATA, "resolution": [pixels], "stages": stages}, "space")
    (point,) = space.points()
    config = load_model_config(write_yaml(tmp_path / "net.yaml", yaml_data(space, point)))
    torch.manual_seed(0)
    network = create_model(config, num_classes=4, drop_path_rate=0.2).train()
    entry, *mixers = network.get_submodule("blocks.1").children()
    assert len(mixers) == 2
    assert type(entry).__name__ == "InvertedResidual"
    network(torch.randn(2, 3, pixels, pixels)).sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    features = create_model(config, features_only=True, out_indices=(1,))(torch.randn(1, 3, pixels, pixels))
    assert features[-1].shape[1] in (8, 32)
    assert len(block_keys(space, point)) == len(_pieces(network)) == 1 + 1 + 3 + 1
    assert mixer in describe(point.stages[1])
    assert mixer in architecture_svg(point, "a network")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"block": ["shvit"], "width": [20], "depth": [1]}, "multiples of 8, got 20"),
        ({"block": ["moat"], "width": [24, 32], "depth": [1]}, "widths from 32 for block 'moat', got 24"),
        ({"block": ["shvit"], "width": [16], "depth": [1], "attention": ["se"]}, "no 'attention'"),
        ({"block": ["shvit"], "width": [16], "depth": [1], "expansion": [2]}, "no 'expansion'"),
    ],
)
def test_choices_that_mixers_have_not_are_refused(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.parse({**DATA, "stages": [{"stride": 2, **stage}]}, "space")


def test_a_model_yaml_with_choices_that_mixers_have_not_is_refused(tmp_path: Path) -> None:
    data = {"family": "mbconv", "resolution": 32, "stages": [{"block": "cas_vit", "width": 16, "kernel": 5}]}
    with pytest.raises(ConfigError, match="only depth, stride and width for block 'cas_vit'"):
        load_model_config(write_yaml(tmp_path / "net.yaml", data))


def test_a_mixer_of_too_few_channels_is_refused(tmp_path: Path) -> None:
    data = {"family": "mbconv", "resolution": 32, "stages": [{"block": "moh", "width": 8}]}
    with pytest.raises(ConfigError, match="a width from 16 for block 'moh', got 8"):
        load_model_config(write_yaml(tmp_path / "net.yaml", data))


@pytest.mark.parametrize("mixer", [name for name in MIXERS if name not in ("shvit", "cas_vit", "mobilemamba")])
def test_blocks_keep_any_map_alone_and_fused(mixer: str) -> None:
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(*create_mixers(mixer, 40, 2, 8, 0.1)).eval()
    fused = fuse(blocks, torch.randn(1, 40, 8, 8))
    with torch.no_grad():
        for size in ((8, 8), (7, 10), (15, 4), (1, 2)):
            x = torch.randn(2, 40, *size)
            out = blocks(x)
            assert out.shape == x.shape
            torch.testing.assert_close(torch.cat([blocks(image) for image in x.split(1)]), out, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(fused(x), out, rtol=1e-4, atol=1e-4)


def test_the_smallest_network_is_of_convolutions_where_they_are_cheaper() -> None:
    assert SPACE.smallest().stages[1].block == "ir"
    assert SPACE.smallest() in SPACE


FURTHER = ("shvit", "cas_vit", "emov2", "mobilemamba", "nat")


@pytest.mark.parametrize(
    "mixer",
    [
        pytest.param("agent", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in FURTHER),
    ],
)
def test_a_network_with_mixers_exports_with_equal_answers(mixer: str, tmp_path: Path) -> None:
    from mobilezoo.workflows.export import export_network
    from mobilezoo.workflows.load_model import with_random_weights
    from mobilezoo_export import ExportConfig

    space = Space.parse({**DATA, "stages": [*DATA["stages"][:1], {"stride": 2, "block": [mixer], "width": [24],
                                                                   "depth": [1]}]}, "space")  # fmt: skip
    (point,) = space.points()
    config = model_config(space, point, f"with_{mixer}")
    loaded = with_random_weights(config, 32, 10)
    for result in export_network(
        loaded,
        ExportConfig(
            targets=(
                "litert",
                "onnx",
            ),
            precisions=("fp32",),
            overwrite=True,
            parity_images=4,
        ),
        tmp_path,
        isolate=False,
    ):
        assert result.path is not None, result.reason
