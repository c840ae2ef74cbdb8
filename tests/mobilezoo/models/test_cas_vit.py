"""CAS-ViT: equal to the official networks, and a good timm citizen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.utils import reparameterize_model
from torch import nn

from mobilezoo.config import config_names
from mobilezoo.errors import ConfigError, InputSizeError
from mobilezoo.models import cas_vit
from mobilezoo.models.registry import create_model, load_model_config
from mobilezoo.testing.references import Reference

VARIANTS = [name for name in config_names("models") if name.startswith("cas_vit_")]
REFERENCES = ["rcvit_m", "rcvit_xs", "rcvit_xs_distheads"]
SIZES = [(224, 224), (256, 256), (320, 240), (193, 161)]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return _lively(create_model("cas_vit_xs", num_classes=10))


def _lively(model: nn.Module) -> nn.Module:
    """Norms that are not the identity, so that a wrong fold or key shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.std())


def test_a_two_head_file_gives_a_one_head_network_the_same_logits(reference: Callable[[str], Reference]) -> None:
    official = reference("rcvit_xs_distheads")
    model = create_model("cas_vit_xs").eval()
    model.load_state_dict(cas_vit.from_official(official.state, model), strict=True)
    with torch.no_grad():
        assert official.difference(model(official.inputs)) <= 1e-4


def test_every_official_variant_has_a_yaml_and_an_alias() -> None:
    aliases = {load_model_config(name).aliases[0] for name in VARIANTS}
    assert aliases == {f"rcvit_{size}{heads}" for size in ("xs", "s", "m", "t") for heads in ("", "_distheads")}


@pytest.mark.parametrize("size", SIZES)
def test_features_have_the_declared_strides_and_channels(size: tuple[int, int]) -> None:
    model = create_model("cas_vit_xs", features_only=True).eval()
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *size))
    for x, stride, channels in zip(maps, model.feature_info.reduction(), model.feature_info.channels(), strict=True):
        assert x.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_features_can_be_chosen_and_equal_the_intermediates(network: nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    chosen = create_model("cas_vit_xs", features_only=True, out_indices=(1, 3)).eval()
    assert [f.shape[1] for f in chosen(x)] == [56, 220]
    with torch.no_grad():
        last, kept = network.forward_intermediates(x, indices=[1, 3])
        assert torch.equal(kept[1], last)
        assert torch.equal(network.forward_features(x), last)


def test_heads_classes_and_channels_follow_the_arguments() -> None:
    x = torch.randn(2, 1, 64, 64)
    model = create_model("cas_vit_xs_dist", num_classes=0, in_chans=1).eval()
    assert model(x).shape == (2, 220)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert [fc.out_features for fc in model.get_classifier()] == [7, 7]
    model.set_distilled_training()
    assert [y.shape for y in model.train()(x)] == [(2, 7), (2, 7)]
    assert model.eval()(x).shape == (2, 7)
    assert create_model("cas_vit_xs", num_classes=0, global_pool="").eval()(torch.randn(1, 3, 64, 64)).shape[2:] == (
        2,
        2,
    )


def test_every_parameter_gets_a_gradient_also_with_checkpointing() -> None:
    torch.manual_seed(0)
    model = create_model("cas_vit_xs", num_classes=5, drop_path_rate=0.0).train()
    x = torch.randn(2, 3, 64, 64)
    model(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(grad.abs().sum() > 0 for name, grad in plain.items() if "conv1.conv.bias" not in name)
    model.zero_grad()
    model.set_grad_checkpointing()
    model(x).square().sum().backward()
    assert all(torch.allclose(p.grad, plain[n], atol=1e-4, rtol=1e-3) for n, p in model.named_parameters())


def test_the_exported_graph_is_static_small_dimensional_and_equal(network: nn.Module) -> None:
    x = torch.randn(1, 3, 97, 65)
    program = torch.export.export(network, (x,))
    for node in (node for node in program.graph.nodes if node.op == "call_function"):
        value = node.meta.get("val")
        assert not isinstance(value, torch.Tensor) or value.dim() <= 4, node
        assert not any(word in str(node.target) for word in ("expand", "unfold", "slice", "sym_size")), node
    with torch.no_grad():
        assert torch.allclose(program.module()(x), network(x), atol=1e-5)


def test_fusing_leaves_no_norm_keeps_the_output_and_the_original() -> None:
    model = _lively(create_model("cas_vit_xs_dist", num_classes=10))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        before = model(x)
        fused = reparameterize_model(reparameterize_model(model))
        assert _relative(fused(x), before) <= 1e-4
        assert torch.equal(model(x), before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())


def test_groups_cover_every_parameter(network: nn.Module) -> None:
    from timm.models._manipulate import group_parameters

    names = {name for name, _ in network.named_parameters()}
    groups = group_parameters(network, network.group_matcher())
    assert {name for members in groups.values() for name in members} == names
    assert network.no_weight_decay() == set()


def test_an_input_below_the_stride_is_one_clear_error(network: nn.Module) -> None:
    with pytest.raises(InputSizeError, match=r"31×40 pixels .* at least 32×32"):
        network(torch.randn(1, 3, 31, 40))
    with pytest.raises(ValueError, match="at least 32"):
        create_model("cas_vit_xs", features_only=True)(torch.randn(1, 3, 16, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [48, 56, 112]}, "one value per stage, 4 as in depths"),
        ({"kernel": 4}, "an odd number"),
        ({"width": 3}, "did you mean"),
    ],
)
def test_a_wrong_config_is_named(change: dict[str, Any], message: str) -> None:
    data = load_model_config("cas_vit_xs").model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        cas_vit.Config.parse({**data, **change}, "mine.yaml")


def test_an_own_state_dict_passes_unchanged(network: nn.Module) -> None:
    own = network.state_dict()
    assert cas_vit.from_official(own, network).keys() == own.keys()
