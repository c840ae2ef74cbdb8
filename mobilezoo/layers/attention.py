"""Attention modules by name, for any block that keeps its input's shape (between a depthwise convolution and its
projection). timm's modules, with each paper's own settings where timm's defaults differ.
"""

from collections.abc import Callable
from functools import partial

from timm.layers import create_attn
from timm.layers.coord_attn import CoordAttn
from torch import nn

from mobilezoo.errors import UnknownNameError


def coordinate_attention(channels: int, reduction: int = 32) -> nn.Module:
    """Coordinate attention as published (Hou et al., arXiv:2103.02907, section 3.2): biased convolutions and
    max(8, channels / reduction) hidden channels. Input and output [B, C, H, W].
    """
    return CoordAttn(channels, rd_channels=max(8, channels // reduction), bias=True)


ATTENTION: dict[str, Callable[[int], nn.Module]] = {
    "coord": coordinate_attention,
    **{name: partial(create_attn, name) for name in ("se", "ese", "eca", "ceca", "ge", "gc", "gca", "cbam", "lcbam")},
    **{name: partial(create_attn, name) for name in ("scoord", "ela", "strip")},
}
"""Name → builder of a module for a number of channels."""


def attention_names() -> tuple[str, ...]:
    """Every name a config may use, `none` first."""
    return ("none", *ATTENTION)


def create_attention(name: str, channels: int) -> nn.Module:
    """A module [B, C, H, W] → [B, C, H, W]; `none` is the identity. Raises UnknownNameError."""
    if name == "none":
        return nn.Identity()
    if name not in ATTENTION:
        raise UnknownNameError("attention", name, attention_names())
    return ATTENTION[name](channels)
