"""Fresh networks: which norms and LayerScales switch branches off, and how they are filled."""

import pytest
import timm
import torch
from torch import nn

from mobilezoo.models.randomize import as_if_trained, randomize_norms, zero_gammas


def filled(name: str, seed: int) -> nn.Module:
    torch.manual_seed(0)
    return randomize_norms(timm.create_model(name), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("shvit_s1", "stages.0.blocks.0.conv.m.bn.weight"),
        ("resnet18", "layer1.0.bn2.weight"),
        ("edgenext_xx_small", "stages.0.blocks.0.gamma"),
        ("fastvit_t8", "stages.0.blocks.0.layer_scale.gamma"),
        ("cait_xxs24_224", "blocks.0.gamma_1"),
    ],
)
def test_branches_switched_off_are_named_and_gone_when_filled(name: str, some: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name)
    assert some in zero_gammas(model)
    assert zero_gammas(randomize_norms(model, torch.Generator().manual_seed(0))) == ()


def test_a_trained_network_has_none() -> None:
    assert zero_gammas(timm.create_model("mobilenetv2_100")) == ()


def test_a_scale_with_one_live_channel_is_not_zero() -> None:
    norm = nn.BatchNorm2d(4)
    nn.init.zeros_(norm.weight)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
    assert zero_gammas(model) == ("1.weight",)
    with torch.no_grad():
        norm.weight[2] = 0.1
    assert zero_gammas(model) == ()


def test_the_generator_alone_decides_the_values() -> None:
    a, b, c = filled("repvit_m0_9", 1), filled("repvit_m0_9", 1), filled("repvit_m0_9", 2)
    norms = [k for k in a.state_dict() if k.endswith(("bn.weight", "running_var", "running_mean", "bn.bias"))]
    assert norms
    for key in norms:
        assert torch.equal(a.state_dict()[key], b.state_dict()[key])
    assert not torch.equal(a.state_dict()[norms[0]], c.state_dict()[norms[0]])


def test_only_norms_change_and_the_network_stays_finite() -> None:
    torch.manual_seed(0)
    fresh = timm.create_model("repvit_m0_9")
    model = filled("repvit_m0_9", 1)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, fresh.state_dict()[k])}
    norms = {n for n, m in model.named_modules() if "Norm" in type(m).__name__ and "Conv" not in type(m).__name__}
    assert {k.rpartition(".")[0] for k in changed} <= norms
    assert all(float(v.min()) > 0 for k, v in model.state_dict().items() if k.endswith("running_var"))
    with torch.no_grad():
        assert bool(torch.isfinite(model.eval()(torch.randn(1, 3, 64, 64))).all())


def test_maps_keep_their_size_as_if_trained() -> None:
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050")
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    as_if_trained(model, images)
    assert not model.training
    assert zero_gammas(model) == ()
    seen: list[torch.Tensor] = []
    norm = model.get_submodule("blocks.2.1.bn1")
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    shifted = seen[0] - norm.running_mean[:, None, None]
    torch.testing.assert_close(shifted.square().mean((0, 2, 3)), norm.running_var)
