"""EMOv2: equal to the official networks, and a good timm citizen."""

from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from mobilezoo.config import config_names
from mobilezoo.errors import ConfigError
from mobilezoo.models import emov2
from mobilezoo.models.registry import create_model, load_model_config

VARIANTS = [name for name in config_names("models") if name.startswith("emo2_")]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return _lively(create_model("emo2_1m", num_classes=10))


def _lively(model: nn.Module) -> nn.Module:
    """Norms and LayerScales that matter, so that a wrong fold, window or key shows."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith((".gamma", "norm.weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith((".bias", "running_mean")):
            tensor.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


def test_every_official_variant_has_a_yaml_and_an_alias() -> None:
    sizes = {"1M": ("", "_256", "_512"), "2M": ("", "_256", "_512"), "5M": ("", "_256", "_512")}
    sizes |= {"20M": ("", "_256"), "50M": ("",)}
    aliases = {load_model_config(name).aliases[0] for name in VARIANTS}
    assert aliases == {f"EMO2_{name}_k5_hybrid{size}" for name, all_sizes in sizes.items() for size in all_sizes}


def test_windows_are_7_at_224_pixels_and_8_above() -> None:
    for name in VARIANTS:
        config = load_model_config(name)
        assert isinstance(config, emov2.Config)
        assert config.window == (7 if config.resolution == (224, 224) else 8)


def test_stochastic_depth_comes_from_the_config_unless_given() -> None:
    def rates(**kwargs: float) -> list[float]:
        return [m.drop_prob for m in create_model("emo2_2m", **kwargs).modules() if isinstance(m, DropPath)]

    assert max(rates()) == pytest.approx(0.05)
    assert max(rates(drop_path_rate=0.3)) == pytest.approx(0.3)
    assert rates(drop_path_rate=0.0) == []


# At 224 pixels whole windows fit. At 193×161 the maps of stages 3 and 4 are 13×11 and 7×6: their 7 + 2 attention blocks
# pad, and then crop, the sides that are not whole.
@pytest.mark.slow
@pytest.mark.parametrize(("size", "crops"), [((224, 224), 0), ((193, 161), 7 * 2 + 2 * 1)])
def test_the_exported_graph_is_static_small_dimensional_and_equal(
    network: nn.Module, size: tuple[int, int], crops: int
) -> None:
    x = torch.randn(1, 3, *size)
    program = torch.export.export(network, (x,))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    for node in calls:
        value = node.meta.get("val")
        assert not isinstance(value, torch.Tensor) or value.dim() <= 4, node
        assert not any(word in str(node.target) for word in ("expand", "unfold", "sym_size", "alias")), node
    cuts = [node for node in calls if any(word in str(node.target) for word in ("slice", "narrow"))]
    assert len(cuts) == crops
    assert all(node.meta["val"].shape != node.args[0].meta["val"].shape for node in cuts)
    with torch.no_grad():
        assert torch.allclose(program.module()(x), network(x), atol=1e-4)


def test_weight_decay_spares_the_layer_scales(network: nn.Module) -> None:
    names = {name for name, _ in network.named_parameters()}
    assert network.no_weight_decay() == {name for name in names if name.endswith("project.gamma")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [32, 48, 80]}, "one value per stage, 4 as in depths"),
        ({"kernels": [5, 5, 4, 5]}, "odd numbers"),
        ({"head_dims": [16, 16, 21, 20]}, "whole heads: 21 channels per head do not fit width 80"),
        ({"attention": ["none", "none", "spanning", "hybrid"]}, "hybrid"),
    ],
)
def test_a_wrong_config_is_named(change: dict[str, Any], message: str) -> None:
    data = load_model_config("emo2_1m").model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        emov2.Config.parse({**data, **change}, "mine.yaml")
