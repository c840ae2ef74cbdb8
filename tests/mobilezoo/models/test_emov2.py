"""EMOv2: equal to the official networks, and a good timm citizen."""

from typing import Any

import pytest
import torch
from timm.layers import DropPath
from timm.utils import reparameterize_model
from torch import nn

from mobilezoo.config import config_names
from mobilezoo.errors import ConfigError, InputSizeError
from mobilezoo.models import emov2
from mobilezoo.models.registry import create_model, load_model_config

VARIANTS = [name for name in config_names("models") if name.startswith("emo2_")]
REFERENCES = ["EMO2_1M_k5_hybrid", "EMO2_5M_k5_hybrid", "EMO2_5M_k5_hybrid_256"]
SIZES = [(224, 224), (256, 256), (320, 240), (193, 161)]


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


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.std())


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


@pytest.mark.parametrize("size", SIZES)
def test_features_have_the_declared_strides_and_channels(size: tuple[int, int]) -> None:
    model = create_model("emo2_1m", features_only=True).eval()
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *size))
    for x, stride, channels in zip(maps, model.feature_info.reduction(), model.feature_info.channels(), strict=True):
        assert x.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_features_can_be_chosen_and_equal_the_intermediates(network: nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    chosen = create_model("emo2_1m", features_only=True, out_indices=(1, 3)).eval()
    assert [f.shape[1] for f in chosen(x)] == [48, 180]
    with torch.no_grad():
        last, kept = network.forward_intermediates(x, indices=[1, 3])
        assert torch.equal(kept[1], last)
        assert torch.equal(network.forward_features(x), last)


def test_heads_classes_and_channels_follow_the_arguments() -> None:
    x = torch.randn(2, 1, 64, 64)
    model = create_model("emo2_1m", num_classes=0, in_chans=1).eval()
    assert model(x).shape == (2, 180)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.get_classifier().out_features == 7
    with pytest.raises(ConfigError, match="num_classes=0"):
        create_model("emo2_1m", num_classes=5, global_pool="")


def test_stochastic_depth_comes_from_the_config_unless_given() -> None:
    def rates(**kwargs: float) -> list[float]:
        return [m.drop_prob for m in create_model("emo2_2m", **kwargs).modules() if isinstance(m, DropPath)]

    assert max(rates()) == pytest.approx(0.05)
    assert max(rates(drop_path_rate=0.3)) == pytest.approx(0.3)
    assert rates(drop_path_rate=0.0) == []


def test_every_parameter_gets_a_gradient_also_with_checkpointing() -> None:
    torch.manual_seed(0)
    model = _lively(create_model("emo2_1m", num_classes=5, drop_path_rate=0.0)).train()
    x = torch.randn(2, 3, 96, 64)
    model(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(grad.abs().sum() > 0 for name, grad in plain.items() if "conv1.conv.bias" not in name)
    model.zero_grad()
    model.set_grad_checkpointing()
    model(x).square().sum().backward()
    assert all(_close(p.grad, plain[n]) for n, p in model.named_parameters())


def _close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((got - expected).norm()) <= 1e-3 * float(expected.norm()) + 1e-4


# At 224 pixels whole windows fit. At 193×161 the maps of stages 3 and 4 are 13×11 and 7×6: their 7 + 2 attention blocks
# pad, and then crop, the sides that are not whole.
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


@pytest.mark.parametrize("size", [(224, 224), (193, 161), (64, 64)])
def test_fusing_leaves_no_batch_norm_keeps_the_output_and_the_original(size: tuple[int, int]) -> None:
    model = _lively(create_model("emo2_1m", num_classes=100))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        before = model(x)
        fused = reparameterize_model(reparameterize_model(model))
        assert _relative(fused(x), before) <= 1e-4
        assert torch.equal(model(x), before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert not any("gamma" in name for name, _ in fused.named_parameters())


def test_groups_cover_every_parameter(network: nn.Module) -> None:
    from timm.models._manipulate import group_parameters

    names = {name for name, _ in network.named_parameters()}
    groups = group_parameters(network, network.group_matcher())
    assert {name for members in groups.values() for name in members} == names
    assert network.no_weight_decay() == {name for name in names if name.endswith("project.gamma")}


def test_an_input_below_the_stride_is_one_clear_error(network: nn.Module) -> None:
    with pytest.raises(InputSizeError, match=r"31×40 pixels .* at least 32×32"):
        network(torch.randn(1, 3, 31, 40))


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


def test_an_own_state_dict_passes_unchanged(network: nn.Module) -> None:
    own = network.state_dict()
    assert emov2.from_official(own, network).keys() == own.keys()
