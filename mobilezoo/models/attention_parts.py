"""Token mixers of the zoo's families as attention by name, for a place in any block that keeps its input's shape.

Each is added to its input: x + mix(x), as in its own network, where it stands in a residual branch of its own. What is
ours: no norm in front, since the BatchNorm of the block around it stands there already (the frequency filter, whose
output grows with the third power of its input, keeps the norm of its network); heads of 8 channels for every width,
so that any multiple of 8 has whole heads and narrower networks of a supernet have the same heads, only fewer; and
position tables for a map of 7×7 (agents) or 14×14 pixels (mixture of heads), which other maps resize.

Maps of any size: windows and halos reach over the edge as in their own networks (zeros), a neighborhood on a map
smaller than itself attends to zeros too.
"""

import torch
from torch import Tensor, nn

from mobilezoo.errors import ConfigError
from mobilezoo.layers.agent_attention import TABLE, AgentAttention
from mobilezoo.layers.halo_attention import HaloAttention
from mobilezoo.layers.head_gates import GlobalAttention
from mobilezoo.layers.inline_attention import InlineAttention
from mobilezoo.layers.neighborhood_attention import NeighborhoodAttention
from mobilezoo.models.affnet import FILTER_GROUPS, FrequencyFilter
from mobilezoo.models.care import TokenMixer
from mobilezoo.models.focalnet import FocalModulation
from mobilezoo.models.ravlt import RankAugmentedAttention
from mobilezoo.models.smt import SCALES, Modulation

HEAD_DIM = 8
"""Channels of a head."""
CARE_HEAD_DIM = 4
"""The same of CARE, which attends on a quarter of the channels."""
HALO_BLOCK, HALO = 7, 3
"""Side of a block of queries, and width of the halo around it; maps of 224-pixel networks are whole blocks."""
KERNEL = 7
"""Side of a neighborhood."""
SHARED = 2
"""Heads of a mixture that always count; of the others, each position takes two thirds, as 2 and 4 of 8 heads."""
MIXTURE_SIDE = (14, 14)
"""Map that sets the scale of a mixture's position biases."""
LEVELS = 2
"""Depthwise kernels of focal modulation, 3×3 and 5×5."""


class Residual(nn.Module):
    """x + mix(x) on [B, C, H, W]."""

    def __init__(self, mix: nn.Module) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)


class MemoryMixer(nn.Module):
    """A quarter of the channels is memory and stays, the rest gains its mixture over near, far and whole map."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.memory = channels // 4
        self.mix = TokenMixer(channels - self.memory, head_dim)

    def forward(self, x: Tensor) -> Tensor:
        memory, features = x.split([self.memory, x.shape[1] - self.memory], dim=1)
        return torch.cat([memory, features + self.mix(features)], dim=1)


def halo(channels: int) -> nn.Module:
    """Halo attention: blocks of 7×7 queries, each with its block and 3 pixels around it."""
    mix = HaloAttention(channels, num_heads=_heads("halo", channels), block_size=HALO_BLOCK, halo_size=HALO)
    return Residual(mix)


def na_k7(channels: int) -> nn.Module:
    """Neighborhood attention over 7×7 positions."""
    return Residual(NeighborhoodAttention(channels, _heads("na_k7", channels), KERNEL))


def na_k7_d2(channels: int) -> nn.Module:
    """Neighborhood attention over 7×7 positions, two apart."""
    return Residual(NeighborhoodAttention(channels, _heads("na_k7_d2", channels), KERNEL, dilation=2))


def focal(channels: int) -> nn.Module:
    """Focal modulation of two levels and the whole map."""
    return Residual(FocalModulation(channels, LEVELS))


def rala(channels: int) -> nn.Module:
    """Rank-augmented linear attention."""
    return Residual(RankAugmentedAttention(channels, _heads("rala", channels)))


def agent(channels: int) -> nn.Module:
    """Agent attention with 7×7 agents."""
    heads, side = _heads("agent", channels), (TABLE, TABLE)
    return Residual(AgentAttention(channels, heads, TABLE * TABLE, side, class_token=False))


def inline(channels: int) -> nn.Module:
    """InLine attention."""
    return Residual(InlineAttention(channels, _heads("inline", channels), class_token=False))


def moh(channels: int) -> nn.Module:
    """Mixture of heads over all positions."""
    heads = _heads("moh", channels, least=SHARED)
    routed = -(-(heads - SHARED) * 2 // 3)
    return Residual(GlobalAttention(channels, heads, MIXTURE_SIDE, SHARED, routed))


def care(channels: int) -> nn.Module:
    """CARE's mixer with linear attention, as in its late stages."""
    _whole("care", channels, 4 * CARE_HEAD_DIM)
    return MemoryMixer(channels, CARE_HEAD_DIM)


def care_stripes(channels: int) -> nn.Module:
    """CARE's mixer with stripes of 11 pixels instead of attention, as in its early stages."""
    _whole("care_stripes", channels, 4)
    return MemoryMixer(channels, 0)


def smt_sam(channels: int) -> nn.Module:
    """Scale-aware modulation of SMT."""
    _whole("smt_sam", channels, len(SCALES))
    return Residual(Modulation(channels))


def aff(channels: int) -> nn.Module:
    """Adaptive frequency filter of AFFNet, behind its norm; the filter adds its input itself."""
    _whole("aff", channels, FILTER_GROUPS)
    return Residual(nn.Sequential(nn.GroupNorm(1, channels, eps=1e-5), FrequencyFilter(channels)))


def _heads(name: str, channels: int, least: int = 1) -> int:
    """Number of heads. Raises ConfigError where the channels are no whole heads, or too few."""
    _whole(name, channels, HEAD_DIM)
    if channels // HEAD_DIM < least:
        raise ConfigError(f"attention {name} needs {least * HEAD_DIM} channels or more, got {channels}")
    return channels // HEAD_DIM


def _whole(name: str, channels: int, parts: int) -> None:
    if channels % parts:
        raise ConfigError(
            f"attention {name} needs a multiple of {parts} channels, got {channels}: "
            "choose another width or expansion, or another attention"
        )
