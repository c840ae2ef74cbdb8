"""Every family keeps timm's contract: arguments, features, heads, groups, checkpointing, odd sizes, half precision."""

import pytest
import timm
import torch
from torch import nn

import mobilezoo
from mobilezoo.errors import ConfigError, InputSizeError
from mobilezoo.models.randomize import randomize_norms

STRIDES = {
    "mobilenetv2_ca_100": (2, 4, 8, 16, 32),
    "mnasnet_small": (2, 4, 8, 16, 32),
    "ghostnetv2_100": (2, 4, 8, 16, 32),
    "shvit_s1": (16, 32, 64),
    "cas_vit_xs": (4, 8, 16, 32),
    "emo2_1m": (4, 8, 16, 32),
    "mobilemamba_t2": (16, 32, 64),
    "mobilenext_035": (4, 8, 16, 32),
    "efficientmod_xxs": (4, 8, 16, 32),
    "ffnet_1": (4, 8, 16, 32),
    "care_s0": (4, 8, 16, 32),
    "smt_t": (4, 8, 16, 32),
    "focalnet_3m": (4, 8, 16, 32),
    "ravlt_t": (4, 8, 16, 32),
    "moat_tiny_0": (4, 8, 16, 32),
    "affnet_et": (2, 4, 8, 16, 32),
    "agent_deit_t": (16, 16, 16),
    "agent_pvt_t": (4, 8, 16, 32),
    "inline_deit_t": (16, 16, 16),
    "nat_3m": (4, 8, 16, 32),
    "illama_t": (16, 16, 16),
    "favit_b0": (4, 8, 16, 32),
    "moh_transnext_4m": (4, 8, 16, 32),
    "halonet_3m": (2, 4, 8, 16, 32),
    "fastvit_t8": (4, 8, 16, 32),
}
"""Smallest variant of every family (and plan) → strides of its features."""
SMALLEST = {"ghostnetv2_100": 33, "cas_vit_xs": 32, "emo2_1m": 32, "mobilemamba_t2": 64, "mobilenext_035": 32}
SMALLEST |= {"care_s0": 32, "smt_t": 3, "focalnet_3m": 32}
SMALLEST |= {"agent_deit_t": 16, "agent_pvt_t": 32, "inline_deit_t": 16, "illama_t": 16}
SMALLEST |= {"favit_b0": 29}
"""Least side in pixels; the others pad and take any."""
PATCHES = {"care_s0": 4, "smt_t": 1, "focalnet_3m": 4, "agent_deit_t": 1, "agent_pvt_t": 4, "inline_deit_t": 1}
PATCHES |= {"illama_t": 1}
"""How many of the stages, from the first, cut maps into unpadded patches: an odd row or column is left out there."""
WITHOUT_DROP_PATH = ("ghostnetv2_100",)
SIZES = [(224, 224), (256, 256), (320, 240), (193, 161)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STRIDES)
def test_features_have_the_declared_strides_and_channels(name: str, size: tuple[int, int]) -> None:
    model = mobilezoo.create_model(name, features_only=True).eval()
    assert tuple(model.feature_info.reduction()) == STRIDES[name]
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *size))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    height, width = (side if name in PATCHES else side + STRIDES[name][0] - 1 for side in size)
    expected = (height // STRIDES[name][0], width // STRIDES[name][0])
    for i, m in enumerate(maps):
        if i and STRIDES[name][i] > STRIDES[name][i - 1]:
            spare = 0 if i < PATCHES.get(name, 0) else 1
            expected = ((expected[0] + spare) // 2, (expected[1] + spare) // 2)
        assert tuple(m.shape[2:]) == expected


@pytest.mark.parametrize("name", STRIDES)
def test_timms_registry_takes_timms_arguments(name: str) -> None:
    drop = {} if name in WITHOUT_DROP_PATH or timm.models._registry.is_model(name) else {"drop_path_rate": 0.2}
    model = timm.create_model(name, num_classes=5, in_chans=1, **drop).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, 96, 96)).shape == (2, 5)
    pyramid = timm.create_model(name, features_only=True, out_indices=(0, 2), in_chans=4)
    assert [m.shape[0] for m in pyramid.eval()(torch.randn(1, 4, 96, 96))] == [1, 1]


@pytest.mark.parametrize("name", STRIDES)
def test_stochastic_depth_acts_in_training_only(name: str) -> None:
    if name in WITHOUT_DROP_PATH:
        with pytest.raises(ConfigError, match="drop_path_rate is not part of"):
            mobilezoo.create_model(name, drop_path_rate=0.5)
        return
    torch.manual_seed(0)
    model = randomize_norms(mobilezoo.create_model(name, drop_path_rate=0.5, drop_rate=0.0))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eval()
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", STRIDES)
def test_heads_can_be_left_out_and_exchanged(name: str) -> None:
    model = mobilezoo.create_model(name, num_classes=0).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        pooled = model(x)
        features = model.forward_features(x)
        assert features.shape[:2] == (2, model.num_features)
        assert torch.equal(model.forward_head(features), pooled)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert pooled.shape == model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", STRIDES)
def test_layer_groups_cover_every_parameter_once(name: str) -> None:
    from timm.models import group_parameters

    model = mobilezoo.create_model(name)
    groups = group_parameters(model, model.group_matcher())
    named = [n for members in groups.values() for n in members]
    assert sorted(named) == sorted(n for n, _ in model.named_parameters())
    assert len(groups) > 3


@pytest.mark.parametrize("name", STRIDES)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = randomize_norms(mobilezoo.create_model(name, drop_rate=0.0, drop_path_rate=0.0, num_classes=3)).train()
    x = torch.randn(4, 3, 96, 96)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model(x).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain = gradient()
    model.set_grad_checkpointing(True)
    torch.testing.assert_close(gradient(), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("name", STRIDES)
def test_small_inputs_are_right_or_refused(name: str) -> None:
    model = randomize_norms(mobilezoo.create_model(name)).eval()
    smallest = SMALLEST.get(name, 1)
    with torch.no_grad():
        assert torch.isfinite(model(torch.randn(1, 3, smallest, smallest))).all()
        if smallest > 1:
            side = smallest - 1
            with pytest.raises(InputSizeError, match=f"input of {side}×{side} pixels is too small .*{smallest}×"):
                model(torch.randn(1, 3, side, side))


@pytest.mark.parametrize("name", STRIDES)
def test_half_precision_on_a_cpu_is_close(name: str) -> None:
    torch.manual_seed(0)
    model = mobilezoo.create_model(name).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        full, half = model(x), model.half()(x.half()).float()
    assert (half - full).abs().max() <= 0.05 * full.std() + 1e-3
