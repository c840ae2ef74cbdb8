"""MoH-TransNeXt: a pyramid of foveal attention whose heads are weighed, and in late stages chosen, token by token.

Papers: "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv:2410.11842 (section 3); "TransNeXt: Robust
Foveal Visual Perception for Vision Transformers", CVPR 2024, arXiv:2311.17132. Official code: SkyworkAI/MoH (MoH-ViT,
its PyTorch-native path), Apache-2.0.

Where it differs from the official code, and why: maps stay [b, c, h, w] with linear layers as 1×1 convolutions;
neighbours are shifted maps instead of unfolded ones; the strongest heads are found by counting larger ones instead of
sorting; biases are made for the map at hand. All heads are computed, as officially: routing saves no time.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.head_choice import HeadGates
from mobilezoo.layers.head_gates import AggregatedAttention, GlobalAttention
from mobilezoo.layers.tokens import Grid
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.favit import NORM_EPS, STEM_STRIDE, Embed, embed_between
from mobilezoo.models.renames import Renames, pvt_stage
from mobilezoo.models.staged import Pyramid, Stage, build_staged

BALANCE_WEIGHT = 0.01
"""Of the load-balancing loss, as in the official engine.py."""


class Config(ModelConfig):
    """A MoH-TransNeXt as data."""

    family: Literal["moh"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    heads: tuple[int, ...] = Field(description="attention heads per stage")
    mlp_ratios: tuple[float, ...] = Field(
        description="hidden width of gated MLPs times 3/2, over the block's, per stage"
    )
    reductions: tuple[int, ...] = Field(
        description="how far the map is pooled, per stage; 1: attention to all positions"
    )
    shared: tuple[int, ...] = Field(description="heads that always count, per stage")
    routed: tuple[int, ...] = Field(description="how many of the other heads a position takes, per stage")

    _one_per_stage = one_per_stage("depths", "heads", "mlp_ratios", "reductions", "shared", "routed")

    @model_validator(mode="after")
    def _heads_are_shared_or_routed(self) -> Self:
        for heads, shared, routed in zip(self.heads, self.shared, self.routed, strict=True):
            rest = heads - shared
            if shared < 2 or not (0 < routed <= rest or routed == rest == 0):
                raise ValueError(f"{heads} heads: at least 2 are shared, and of the rest 1 or more are routed")
        return self

    def grid(self, stage: int) -> Grid:
        """Rows and columns of a stage's map at the network's resolution."""
        step = STEM_STRIDE << stage
        return self.resolution[0] // step, self.resolution[1] // step


class GatedMlp(nn.Module):
    """GELU(depthwise 3×3 of 1×1) · 1×1 → 1×1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(dim, hidden, 1)
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.value = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dw(self.gate(x))) * self.value(x))


class Block(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, stage: int, config: Config, drop_path: float) -> None:
        super().__init__()
        dim, reduction = config.widths[stage], config.reductions[stage]
        given = (dim, config.heads[stage], config.grid(stage), config.shared[stage], config.routed[stage])
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.attn: nn.Module = AggregatedAttention(*given, reduction) if reduction > 1 else GlobalAttention(*given)
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp = GatedMlp(dim, int(2 * int(dim * config.mlp_ratios[stage]) / 3))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Moh(Pyramid):
    """MoH-TransNeXt for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Embed(in_chans, cfg.widths[0], 7, STEM_STRIDE)

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        down = embed_between(cfg.widths, stage)
        return Stage([Block(stage, cfg, rate) for rate in rates], down)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=NORM_EPS)

    def auxiliary_loss(self) -> Tensor | None:
        """Load-balancing loss of the last batch in training: the layers' mean, weighed; None where none routes."""
        found = [module for module in self.modules() if isinstance(module, HeadGates)]
        values = [gates.unbalance for gates in found if gates.unbalance is not None]
        for gates in found:
            gates.unbalance = None
        return BALANCE_WEIGHT * torch.stack(values).mean() if values else None


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Moh; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Moh, config, len(config.depths), first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^patch_embed1\.proj\.", "stem.conv."),
    (r"^patch_embed1\.norm\.", "stem.norm."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dw."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)
_ATTENTION = {
    "query_embedding": "embedding",
    "relative_pos_bias_local": "tap_bias",
    "learnable_tokens": "tap_tokens",
    "learnable_bias": "tap_offset",
    "q.weight": "query.weight",
    "q.bias": "query.bias",
    "sr.weight": "pool.weight",
    "sr.bias": "pool.bias",
    "wg.weight": "gates.choice.weight",
    "wg_0.weight": "gates.balance.weight",
    "wg_1.weight": "gates.within.weight",
}
_CUT = {"qkv": ("query", "key", "value"), "kv": ("key", "value"), "fc1": ("gate", "value")}


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`moh_transnext_*`) state dict and cut its joint projections; any other is unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if "block1.0.attn.wg_1.weight" not in state_dict:
        return dict(state_dict)
    stages = len(list(model.get_submodule("stages").children()))
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        owner, attn, name = _RENAMES(pvt_stage(key, stages)).partition(".attn.")
        if attn:
            renamed |= {f"{owner}.attn.{new}": part for new, part in attention_parts(name, value)}
        else:
            renamed |= {new: as_kernel(new, part) for new, part in _cut(owner, value)}
    return renamed


def attention_parts(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """One official tensor of an attention as ours, cut where it joins several.

    Args:
        name: official name below the attention, such as `qkv.weight`.
        value: the tensor.

    Returns:
        (our name below the attention, tensor) of each part.
    """
    name = re.sub(r"^cpb_", "bias.", _ATTENTION.get(name, name))
    return [(new, as_kernel(new, part)) for new, part in ([(name, value)] if "bias.fc" in name else _cut(name, value))]


def as_kernel(name: str, value: Tensor) -> Tensor:
    """A matrix as a 1×1 kernel, but for linear layers and tables.

    Args:
        name: our name, which shows whether the tensor is a kernel.
        value: any tensor; only matrices [out, in] become [out, in, 1, 1].
    """
    kept = name.startswith(("head.", "bias.", "tap_"))
    return value[:, :, None, None] if value.ndim == 2 and not kept else value


def _cut(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    owner, _, kind = name.rpartition(".")
    place, _, part = owner.rpartition(".")
    if part not in _CUT:
        return [(name, value)]
    names = [".".join(filter(None, (place, new, kind))) for new in _CUT[part]]
    return list(zip(names, value.chunk(len(names)), strict=True))
