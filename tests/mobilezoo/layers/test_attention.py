"""Every attention by name: shapes, gradients, images of their own, fused and exported forms, channels refused."""

import pytest
import torch
from torch import Tensor, nn

from mobilezoo.errors import ConfigError, InputSizeError, UnknownNameError
from mobilezoo.layers.attention import MIXING, attention_names, create_attention
from mobilezoo.models.fuse import fuse
from mobilezoo.models.randomize import randomize_norms

NAMES = [name for name in attention_names() if name != "none"]
CHANNELS = 32
MAPS = [(8, 8), (7, 10), (15, 4), (1, 2)]
"""Below and above windows and halos, odd, not square, nearly nothing."""
TOO_SMALL = {"ela_t": "needs maps of 2×2 pixels or more", "gaam_block": "needs 4 values there, got 2"}
"""Name → what it answers to the last of them."""


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    part = create_attention(name, CHANNELS)
    randomize_norms(part, torch.Generator().manual_seed(0))
    return part.eval()


def images(*size: int) -> Tensor:
    return torch.randn(3, CHANNELS, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_part_keeps_every_map_and_treats_each_image_alone(name: str) -> None:
    part = built(name)
    with torch.no_grad():
        for size in MAPS[: -1 if name in TOO_SMALL else None]:
            x = images(*size)
            out = part(x)
            assert out.shape == x.shape
            assert torch.isfinite(out).all()
            alone = torch.cat([part(image) for image in x.split(1)])
            torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TOO_SMALL)
def test_maps_whose_parts_have_single_values_are_refused(name: str) -> None:
    with pytest.raises(InputSizeError, match=TOO_SMALL[name]):
        built(name)(images(*MAPS[-1]))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_the_input(name: str) -> None:
    part = built(name).train()
    x = images(9, 12).requires_grad_()
    part(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    for key, parameter in part.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", MIXING)
def test_mixers_fused_for_one_map_are_equal_on_others(name: str) -> None:
    part = built(name)
    fused = fuse(part, images(8, 8))
    with torch.no_grad():
        for size in MAPS:
            x = images(*size)
            torch.testing.assert_close(fused(x), part(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_can_be_exported(name: str) -> None:
    part, x = built(name), images(7, 10)
    program = torch.export.export(part, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), part(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("halo", 20, "halo needs a multiple of 8 channels, got 20: choose another width"),
        ("moh", 8, "moh needs 16 channels or more, got 8"),
        ("care", 24, "care needs a multiple of 16 channels, got 24"),
        ("smt_sam", 6, "smt_sam needs a multiple of 4 channels, got 6"),
    ],
)
def test_channels_that_a_mixer_cannot_take_are_refused(name: str, channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_attention(name, channels)


def test_a_misspelled_name_gets_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="na_k7"):
        create_attention("na_k8", CHANNELS)
