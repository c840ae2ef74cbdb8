"""iLLaMA: LLaMA's decoder on image patches, causal attention with the class token behind them.

Paper: "Adapting LLaMA Decoder to Vision Transformer", arXiv:2404.06773 (sections 3.2 to 3.5). Official code:
techmonsterwang/iLLaMA; its repository states no license.

Where it differs from the official code, and why: the sequence is a map of one column with linear layers as 1×1
convolutions; rotary pairs are real and lie half a head apart (see `layers/rotary.py`), since phones have no complex
numbers. Positions are resized to the image at hand. The soft mask's rate is a key of the config: the official code
moves it from 1 to 0 while it trains.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath
from torch import Tensor, nn

from mobilezoo.layers.foldable import SplitConv
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.rotary import pairs_to_halves, rotate, sequence_tables
from mobilezoo.layers.tokens import Grid, TokenHead, TokenStem
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.staged import build_network, drop_path_rates
from mobilezoo.models.transformer import TokenNet, rename_official, token_positions

NORM_EPS = 1e-6


class Config(ModelConfig):
    """An iLLaMA as data."""

    family: Literal["illama"]
    width: int = Field(gt=0, description="channels of a token")
    depth: int = Field(gt=0, description="blocks")
    heads: int = Field(gt=0, description="attention heads; an even number of channels each")
    mlp_width: int = Field(gt=0, description="hidden channels of the gated MLPs")
    patch: int = Field(default=16, gt=0, description="side in pixels of the stem's patches")
    soft_mask: float = Field(default=0.0, ge=0, le=1, description="weight of later tokens: 0 is causal, 1 sees all")


class RmsNorm(nn.Module):
    """x / root mean square over the channels of [b, c, h, w], times a factor per channel; no mean is taken off."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        power = x.float().square().mean(dim=1, keepdim=True)
        return (x.float() * torch.rsqrt(power + NORM_EPS)).to(x.dtype) * self.weight.reshape(1, -1, 1, 1)


class CausalAttention(nn.Module):
    """Attention with rotary positions on [b, dim, n, 1]; later tokens weigh `soft_mask` times their softmax.

    The mask multiplies after the softmax and nothing is normalized again, as officially.
    """

    def __init__(self, dim: int, num_heads: int, soft_mask: float) -> None:
        super().__init__()
        self.num_heads, self.soft_mask = num_heads, soft_mask
        self.scale = (dim // num_heads) ** -0.5
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (to_heads(part, self.num_heads) for part in self.qkv(x))  # (b h) n d
        if self.scale != 1.0:
            q = q * self.scale
        cos, sin = sequence_tables(q.shape[1], q.shape[2], q)
        logits = torch.bmm(rotate(q, cos, sin), rotate(k, cos, sin).transpose(1, 2))
        weights = logits.softmax(dim=-1)
        if self.soft_mask < 1.0:
            seen = torch.ones(q.shape[1], q.shape[1], device=q.device, dtype=q.dtype).tril()
            weights = weights * (self.soft_mask + (1.0 - self.soft_mask) * seen)
        return self.proj(from_heads(torch.bmm(weights, v), self.num_heads, *x.shape[2:]))

    def fuse(self) -> "CausalAttention":
        """Queries, keys and values as convolutions of their own, the scale folded into the first."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            fused.qkv = fused.qkv.fuse()
            for tensor in fused.qkv.convs[0].parameters():
                tensor.data *= self.scale
            fused.scale = 1.0
        return fused


class GatedMlp(nn.Module):
    """SiLU(1×1) · 1×1 → 1×1, without biases."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.fc3 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.act = nn.SiLU()
        self.fc2 = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)) * self.fc3(x))


class Block(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm1 = RmsNorm(config.width)
        self.attn = CausalAttention(config.width, config.heads, config.soft_mask)
        self.norm2 = RmsNorm(config.width)
        self.mlp = GatedMlp(config.width, config.mlp_width)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """One block on a sequence; the output has the shape of `x`.

        Args:
            x: sequence [b, width, n, 1].
            grid: ignored: positions of a sequence are rotary.
        """
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Illama(TokenNet):
    """iLLaMA for classification; `feature_info` lists the blocks, all at the patches' stride."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        (rates,), grid = drop_path_rates(drop_path_rate, (cfg.depth,)), [side // cfg.patch for side in cfg.resolution]
        super().__init__(
            TokenStem(in_chans, cfg.width, cfg.patch, (grid[0], grid[1]), last=True),
            [Block(cfg, rate) for rate in rates],
            TokenHead(cfg.width, num_classes, RmsNorm(cfg.width), global_pool, drop_rate, last=True),
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an Illama as timm builds its models.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    features = {"out_indices": 3, "feature_cls": "getter"}
    return build_network(Illama, config, features, first_conv="stem.conv", **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`illama_*`) state dict and reorder its rotary pairs; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    renamed = rename_official(state_dict)
    if renamed is None or "blocks.0.mlp.fc3.weight" not in state_dict:
        return dict(state_dict)
    renamed |= token_positions(state_dict["pos_embed"], last=True) if "pos_embed" in state_dict else {}
    heads = {name: module.num_heads for name, module in model.named_modules() if isinstance(module, CausalAttention)}
    for key, value in renamed.items():
        owner, joint, _ = key.partition(".qkv.")
        if joint and owner in heads:
            q, k, v = value.chunk(3)
            renamed[key] = torch.cat([pairs_to_halves(q, heads[owner]), pairs_to_halves(k, heads[owner]), v])
    return renamed
