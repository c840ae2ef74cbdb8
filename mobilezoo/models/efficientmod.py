"""EfficientMod: a wide value branch modulated by a depthwise context, with attention at the end of late stages.

Paper: "Efficient Modulation for Vision Networks", ICLR 2024, arXiv:2403.19963 (section 3, block of figure 2). Official
code: ma-xu/EfficientMod, Apache-2.0.

Where it differs from the official code, and why:
- maps stay [b, c, h, w] and linear layers are 1×1 convolutions, so that phones need no transposes;
- attention is written out (product, softmax, product), which every phone format takes.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.map_attention import MapAttention
from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames, as_kernel
from mobilezoo.models.staged import Pyramid, Stage, build_staged

STEM_STRIDE = 4
KERNEL = 7
"""Side in pixels of the context's depthwise convolution."""
HEADS, MIN_HEAD_DIM = 8, 32


class Config(ModelConfig):
    """An EfficientMod as data."""

    family: Literal["efficientmod"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="modulation blocks per stage")
    attention_depths: tuple[int, ...] = Field(description="attention blocks at the end of each stage")
    ratios: tuple[int, ...] = Field(
        default=(1, 6), min_length=1, description="widths of the value branch over the block's, taken in turns"
    )
    attention_mlp_ratios: tuple[float, ...] = Field(description="hidden width of attention blocks' MLPs, per stage")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every LayerNorm")
    layer_scale: float = Field(default=1e-4, gt=0, description="initial LayerScale of modulation blocks")

    _one_per_stage = one_per_stage("depths", "attention_depths", "attention_mlp_ratios")


class Embed(nn.Module):
    """Strided convolution → LayerNorm."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int, norm_eps: float, min_size: int = 1) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv = nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2)
        self.norm = LayerNorm2d(out_chs, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.norm(self.conv(x))


class Context(nn.Module):
    """1×1 → depthwise 7×7 → GELU → 1×1: what modulates the value."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw1 = nn.Conv2d(dim, dim, 1)
        self.dw = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.act = nn.GELU()
        self.pw2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.act(self.dw(self.pw1(x))))


class Modulation(nn.Module):
    """project(value · context): token mixing and MLP in one; the context repeats over a value `ratio` times as wide."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.value = nn.Conv2d(dim, ratio * dim, 1)
        self.act = nn.GELU() if ratio > 1 else nn.Identity()
        self.context = Context(dim)
        self.project = nn.Conv2d(ratio * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = self.context(x)
        return self.project(self.act(self.value(x)) * torch.cat([context] * self.ratio, dim=1))


class ModulationBlock(nn.Module):
    """x + LayerScale(modulation(norm(x))); there is no MLP of its own."""

    def __init__(self, dim: int, ratio: int, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim, eps=config.norm_eps)
        self.mod = Modulation(dim, ratio)
        self.gamma = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mod(self.norm(x)) * self.gamma.reshape(1, -1, 1, 1))


class AttentionBlock(nn.Module):
    """Pre-norm attention and MLP; heads have at least 32 channels, so narrow maps attend in a wider space."""

    def __init__(self, dim: int, mlp_ratio: float, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=config.norm_eps)
        self.attn = MapAttention(dim, HEADS, head_dim=max(dim // HEADS, MIN_HEAD_DIM))
        self.norm2 = LayerNorm2d(dim, eps=config.norm_eps)
        self.mlp = MapMlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class EfficientMod(Pyramid):
    """EfficientMod for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    @staticmethod
    def depths(cfg: Config) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(cfg.depths, cfg.attention_depths, strict=True))

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Embed(in_chans, cfg.widths[0], KERNEL, STEM_STRIDE, cfg.norm_eps)

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        down = Embed(cfg.widths[stage - 1], cfg.widths[stage], 3, 2, cfg.norm_eps) if stage > 0 else None
        return Stage(_blocks(cfg, stage, rates), down)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=cfg.norm_eps)


def _blocks(cfg: Config, stage: int, rates: list[float]) -> list[nn.Module]:
    """Modulation blocks whose value widths alternate, then attention blocks."""
    width, depth = cfg.widths[stage], cfg.depths[stage]
    mixed = [ModulationBlock(width, cfg.ratios[j % len(cfg.ratios)], cfg, rates[j]) for j in range(depth)]
    attended = [AttentionBlock(width, cfg.attention_mlp_ratios[stage], cfg, rate) for rate in rates[depth:]]
    return [*mixed, *attended]


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an EfficientMod; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(EfficientMod, config, len(config.depths), first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^patch_embed\.proj\.", "stem.conv."),
    (r"^patch_embed\.norm\.", "stem.norm."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"\.gamma_1$", ".gamma"),
    (r"\.mlp\.context_layer\.f\.", ".mod.context.pw1."),
    (r"\.mlp\.context_layer\.context_list\.0\.", ".mod.context.dw."),
    (r"\.mlp\.context_layer\.g\.", ".mod.context.pw2."),
    (r"\.attn\.qkv\.", ".attn.qkv.conv."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`efficientMod_*`) state dict, matrices as 1×1 kernels; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("patch_embed.proj.") for key in state_dict):
        return dict(state_dict)
    modulated = {key.rpartition("gamma_1")[0] for key in state_dict if key.endswith("gamma_1")}
    return {(new := _rename(key, modulated)): as_kernel(value, new) for key, value in state_dict.items()}


def _rename(key: str, modulated: set[str]) -> str:
    """Our key; blocks with the prefixes `modulated` keep value and projection in what is an MLP elsewhere."""
    if match := re.match(r"layers\.(\d+)\.downsample\.proj\.(.*)", key):
        return f"stages.{int(match[1]) + 1}.downsample.conv.{match[2]}"
    if match := re.match(r"layers\.(\d+)\.downsample\.norm\.(.*)", key):
        return f"stages.{int(match[1]) + 1}.downsample.norm.{match[2]}"
    block = re.match(r"layers\.\d+\.blocks\.\d+\.", key)
    if block and block[0] in modulated:
        key = key.replace(".mlp.fc1.", ".mod.value.").replace(".mlp.fc2.", ".mod.project.")
    return _RENAMES(key)
