"""Attention modules by name, for any block that keeps its input's shape (between a depthwise convolution and its
projection). timm's modules, with each paper's own settings where timm's defaults differ, modules of the zoo, and the
token mixers of its families.
"""

from collections.abc import Callable
from functools import partial

from timm.layers import EcaModule, create_attn
from timm.layers.coord_attn import CoordAttn
from torch import nn

from mobilezoo.layers.local_attention import (
    EfficientLocalAttention,
    GaussianAttention,
    GaussianBlock,
    SubspaceAttention,
)
from mobilezoo.registry import Registry


def coordinate_attention(channels: int, reduction: int = 32) -> nn.Module:
    """Coordinate attention as published (Hou et al., arXiv:2103.02907, section 3.2): biased convolutions and
    max(8, channels / reduction) hidden channels. Input and output [B, C, H, W].

    Args:
        channels: C, of input and output.
        reduction: input channels over hidden ones.
    """
    return CoordAttn(channels, rd_channels=max(8, channels // reduction), bias=True)


def eca_of_mobilenet(channels: int) -> nn.Module:
    """ECA with the kernels of the official MobileNetV2 (BangguWu/ECANet, models/eca_mobilenetv2.py): 1 below 96
    channels, else 3. The paper's formula is `eca`.
    """
    return EcaModule(kernel_size=1 if channels < 96 else 3)


def _gaussian(channels: int) -> nn.Module:
    """Gaussian attention along the channels, 4 heads of 2 Gaussians."""
    return GaussianAttention(axis=1, heads=4, gaussians=2)


def _gaussian_block(channels: int) -> nn.Module:
    """Gaussian attention along the channels, then along the width, each added to its input."""
    return GaussianBlock()


def _ela(kernel: int, per_group: int, norm_groups: int) -> Callable[[int], nn.Module]:
    return partial(EfficientLocalAttention, kernel=kernel, per_group=per_group, norm_groups=norm_groups)


OF_TIMM = ("se", "ese", "eca", "ceca", "gc", "gca", "cbam", "lcbam", "scoord", "strip")

ELA = {"ela_t": (5, 1, 32), "ela_b": (7, 1, 16), "ela_s": (5, 8, 16), "ela_l": (7, 8, 16)}
"""Variant of ELA → kernel, channels per group of the convolution, groups of the norm."""

MIXING = (
    "halo",
    "na_k7",
    "na_k7_d2",
    "focal",
    "rala",
    "agent",
    "inline",
    "moh",
    "care",
    "care_stripes",
    "smt_sam",
    "aff",
)
"""Token mixers of families, each added to its input; their modules lie above this one, so their places stand here."""

ATTENTION: Registry[Callable[[int], nn.Module]] = Registry(
    "attention",
    "attention",
    {
        "coord": coordinate_attention,
        **{name: partial(create_attn, name) for name in OF_TIMM},
        **{name: _ela(*settings) for name, settings in ELA.items()},
        "eca_mobilenet": eca_of_mobilenet,
        "ulsam_g4": partial(SubspaceAttention, groups=4),
        "ulsam_g8": partial(SubspaceAttention, groups=8),
        "gaam": _gaussian,
        "gaam_block": _gaussian_block,
        **{name: f"mobilezoo.models.attention_parts:{name}" for name in MIXING},
    },
    callable,
    "a callable that makes a module for a number of channels",
)
"""Name → builder of a module for a number of channels."""


def attention_names() -> tuple[str, ...]:
    """Every name a config may use, `none` first; `package.module:attribute` of a user's own is accepted too."""
    return ("none", *ATTENTION)


def known_attention(name: str) -> str:
    """The name itself, for a config's validator. Raises UnknownNameError or ConfigError."""
    return name if name == "none" else ATTENTION.known(name)


def create_attention(name: str, channels: int) -> nn.Module:
    """Build a module [B, C, H, W] → [B, C, H, W]; `none` is the identity.

    Args:
        name: key of `ATTENTION`, `none`, or `package.module:attribute`.
        channels: C, of input and output.

    Raises:
        UnknownNameError: no attention has this name.
        ConfigError: a `package.module:attribute` cannot be used.
    """
    return nn.Identity() if name == "none" else ATTENTION.load(name)(channels)
