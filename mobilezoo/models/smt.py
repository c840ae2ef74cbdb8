"""SMT: convolutions of several scales modulate values in early stages, attention takes over in late ones.

Paper: "Scale-Aware Modulation Meet Transformer", ICCV 2023, arXiv:2307.08579 (MHMC, SAA, evolutionary hybrid network).
Official code: AFeng-x/SMT, MIT.

Where it differs from the official code, and why:
- maps stay [b, c, h, w] and linear layers are 1×1 convolutions, so that phones need no transposes;
- attention is written out, with queries, keys and values from one projection;
- the deployment form has the channels interleaved by the projection's weights instead of moved, and one depthwise
  convolution whose smaller kernels are padded with zeros.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import ConvNorm, with_weights
from mobilezoo.layers.map_attention import MapAttention
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames, as_kernel
from mobilezoo.models.staged import Pyramid, Stage, build_staged

STEM_STRIDE = 4
SCALES = (3, 5, 7, 9)
"""Sides in pixels of the modulation's kernels, one per head."""
EXPANSION = 2
"""Width inside the aggregation over the block's."""


class Config(ModelConfig):
    """An SMT as data."""

    family: Literal["smt"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    mlp_ratios: tuple[float, ...] = Field(description="hidden width of feed-forward parts over the block's, per stage")
    mixers: tuple[Literal["modulation", "both", "attention"], ...] = Field(
        description="token mixer per stage; both: modulation and attention in turns"
    )
    heads: tuple[int, ...] = Field(description="attention heads per stage; unused without attention")

    _one_per_stage = one_per_stage("depths", "mlp_ratios", "mixers", "heads")


class Stem(nn.Module):
    """3×3 convolution of stride 2, then patches of 2×2."""

    def __init__(self, in_chs: int, out_chs: int, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv1 = ConvNorm(in_chs, out_chs, 3, stride=2)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(out_chs, out_chs, 2, 2)
        self.norm = LayerNorm2d(out_chs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.norm(self.conv2(self.act(self.conv1(x))))


class Downsample(nn.Module):
    """3×3 convolution of stride 2 → LayerNorm."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 3, 2, 1)
        self.norm = LayerNorm2d(out_chs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Scales(nn.Module):
    """Multi-head mixed convolution: 1×1, then a kernel of its own size for each quarter of the channels.

    Output channels are interleaved: the quarters' first channels, their second ones, and so on.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw = nn.Conv2d(dim, dim, 1)
        part = dim // len(SCALES)
        self.convs = nn.ModuleList(nn.Conv2d(part, part, k, padding=k // 2, groups=part) for k in SCALES)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.pw(x).chunk(len(SCALES), dim=1)
        mixed = torch.stack([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=2)
        return mixed.flatten(1, 2)

    def fuse(self) -> nn.Sequential:
        """1×1 with interleaved outputs → one depthwise convolution of the largest size."""
        dim, convs = self.pw.out_channels, [conv for conv in self.convs if isinstance(conv, nn.Conv2d)]
        order = torch.arange(dim).reshape(len(SCALES), -1).t().flatten()
        assert self.pw.bias is not None
        pw = with_weights(self.pw, self.pw.weight.detach()[order], self.pw.bias.detach()[order])
        kernels = [F.pad(c.weight.detach(), [(SCALES[-1] - c.kernel_size[0]) // 2] * 4) for c in convs]
        dw = nn.Conv2d(dim, dim, SCALES[-1], padding=SCALES[-1] // 2, groups=dim).to(self.pw.weight)
        dw.weight.data.copy_(torch.cat(kernels)[order])
        assert dw.bias is not None
        dw.bias.data.copy_(torch.cat([c.bias.detach() for c in convs if c.bias is not None])[order])
        return nn.Sequential(pw, dw.train(self.training))


class Modulation(nn.Module):
    """Scale-aware modulation: project(values · aggregated scales)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(dim, dim, 1)
        self.scales = Scales(dim)
        self.group = ConvNorm(dim, EXPANSION * dim, groups=dim // len(SCALES), bias=True)
        self.act = nn.GELU()
        self.merge = nn.Conv2d(EXPANSION * dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.merge(self.act(self.group(self.scales(x)))) * self.value(x))


class ConvMlp(nn.Module):
    """1×1 → (identity + depthwise 3×3) → GELU → 1×1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(self.act(x + self.dw(x)))


class Block(nn.Module):
    """Pre-norm token mixer and feed-forward part."""

    def __init__(self, stage: int, config: Config, attends: bool, drop_path: float) -> None:
        super().__init__()
        dim = config.widths[stage]
        self.norm1 = LayerNorm2d(dim, eps=1e-6)
        self.mix: nn.Module = attention(dim, config.heads[stage]) if attends else Modulation(dim)
        self.norm2 = LayerNorm2d(dim, eps=1e-6)
        self.mlp = ConvMlp(dim, int(dim * config.mlp_ratios[stage]))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mix(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def attention(dim: int, heads: int) -> MapAttention:
    """Build attention whose values pass a depthwise 3×3 convolution as well.

    Args:
        dim: channels of input and output.
        heads: attention heads.
    """
    return MapAttention(dim, heads, qkv_bias=True, local=nn.Conv2d(dim, dim, 3, padding=1, groups=dim))


class Smt(Pyramid):
    """SMT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32.

    Every stage but the last ends with a norm, which its features include; the last one's belongs to the head.
    """

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Stem(in_chans, cfg.widths[0], min_size=STEM_STRIDE - 1)

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        width, mixer = cfg.widths[stage], cfg.mixers[stage]
        blocks: list[nn.Module] = [Block(stage, cfg, _attends(mixer, j), rate) for j, rate in enumerate(rates)]
        if stage < len(cfg.widths) - 1:
            blocks.append(LayerNorm2d(width, eps=1e-6))
        return Stage(blocks, Downsample(cfg.widths[stage - 1], width) if stage > 0 else None)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=1e-6)


def _attends(mixer: str, index: int) -> bool:
    return mixer == "attention" or (mixer == "both" and index % 2 == 1)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an Smt; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Smt, config, len(config.depths), **kwargs)


_RENAMES = Renames(
    (r"^patch_embed1\.conv\.0\.", "stem.conv1.conv."),
    (r"^patch_embed1\.conv\.1\.", "stem.conv1.norm."),
    (r"^patch_embed1\.conv\.3\.", "stem.conv2."),
    (r"^patch_embed1\.norm\.", "stem.norm."),
    (r"\.attn\.v\.", ".mix.value."),
    (r"\.attn\.s\.", ".mix.scales.pw."),
    (r"\.attn\.proj0\.", ".mix.group.conv."),
    (r"\.attn\.bn\.", ".mix.group.norm."),
    (r"\.attn\.proj1\.", ".mix.merge."),
    (r"\.attn\.proj\.", ".mix.proj."),
    (r"\.attn\.local_conv\.", ".mix.local."),
    (r"\.attn\.qkv\.", ".mix.qkv.conv."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dw."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`smt_*`) state dict, matrices as 1×1 kernels; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("patch_embed1.") for key in state_dict):
        return dict(state_dict)
    counts = [len(stage.blocks) for stage in getattr(model, "stages", ())]
    renamed = {}
    for key, value in state_dict.items():
        if ".attn.kv." in key:
            continue
        joined = key.replace(".attn.q.", ".attn.qkv.")
        if joined != key:
            value = torch.cat([value, state_dict[key.replace(".attn.q.", ".attn.kv.")]])
        new = _rename(joined, counts)
        renamed[new] = as_kernel(value, new)
    return renamed


def _rename(key: str, counts: list[int]) -> str:
    """Our key; `counts` holds the modules per stage, of which the last is the stage's norm."""
    if match := re.match(r"block(\d)\.(\d+)\.(.*)", key):
        key = f"stages.{int(match[1]) - 1}.blocks.{match[2]}.{match[3]}"
    elif match := re.match(r"patch_embed([2-9])\.(?:proj|(norm))\.(.*)", key):
        key = f"stages.{int(match[1]) - 1}.downsample.{match[2] or 'conv'}.{match[3]}"
    elif match := re.match(r"norm(\d)\.(.*)", key):
        stage = int(match[1]) - 1
        last = stage == len(counts) - 1 or stage >= len(counts)
        key = f"head.norm.{match[2]}" if last else f"stages.{stage}.blocks.{counts[stage] - 1}.{match[2]}"
    key = re.sub(r"\.attn\.local_conv_(\d)\.", lambda m: f".mix.scales.convs.{int(m[1]) - 1}.", key)
    return _RENAMES(key)
