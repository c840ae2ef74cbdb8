"""Tiny-MOAT: inverted residuals whose MLP is dropped where attention follows.

Paper: "MOAT: Alternating Mobile Convolution and Attention Brings Strong Vision Models", ICLR 2023, arXiv:2210.01820
(MOAT block, section 2; tiny-MOAT, section 3.5). Official code: google-research/deeplab2 (TensorFlow), Apache-2.0.

Where it differs from the official code, and why: maps are [b, c, h, w]; the relative position bias is resized to the
map at hand at every call, so weights loaded later are always the ones in use (official code in eager mode keeps the
bias of the first build). Downsampling pads as TensorFlow does: only at the bottom and right where the side is even.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath, LayerNorm2d, SqueezeExcite, create_conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import NormConv
from mobilezoo.layers.head import PoolNormHead
from mobilezoo.layers.map_attention import MapAttention
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Pyramid, Stage, build_staged

EXPANSION, SE_RATIO, HEAD_DIM = 4, 0.25, 32


class Config(ModelConfig):
    """A tiny-MOAT as data."""

    family: Literal["moat"]
    stem_width: int = Field(gt=0, description="channels of both stem convolutions")
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    position_sizes: tuple[int, ...] = Field(
        description="side of the map that a stage's position table is made for; 0: blocks without attention"
    )
    position_bias: bool = Field(default=True, description="relative position bias in attention")
    norm_eps: float = Field(default=1e-3, gt=0, description="epsilon of every BatchNorm")

    _one_per_stage = one_per_stage("depths", "position_sizes")


class Stem(nn.Module):
    """Two 3×3 convolutions, the first of stride 2; norm and activation only between them."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = create_conv2d(in_chs, out_chs, 3, stride=2, padding="same", bias=True)
        self.norm = nn.BatchNorm2d(out_chs, eps=norm_eps)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.conv2(self.act(self.norm(self.conv1(x))))


class BiasedAttention(MapAttention):
    """Attention whose logits carry a learned bias per head and offset, resized to the map (bilinear, half pixels)."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__(dim, dim // HEAD_DIM, HEAD_DIM, qkv_bias=True)
        self.table = nn.Parameter(torch.zeros(dim // HEAD_DIM, 2 * side - 1, 2 * side - 1))
        nn.init.normal_(self.table, std=0.02)

    def position_bias(self, height: int, width: int) -> Tensor:
        """[h, n, n]: the table's entry at the key's position minus the query's."""
        size = (2 * height - 1, 2 * width - 1)
        table: Tensor = self.table
        if table.shape[1:] != size:
            table = F.interpolate(table[None], size, mode="bilinear", align_corners=False)[0]
        rows = _offsets(height, table.device)[:, None, :, None]
        columns = _offsets(width, table.device)[None, :, None, :]
        index = (rows * size[1] + columns).reshape(-1)
        tokens = height * width
        return table.flatten(1).index_select(1, index).reshape(-1, tokens, tokens)


def _offsets(side: int, device: torch.device) -> Tensor:
    """[side, side]: key minus query, from 0."""
    positions = torch.arange(side, device=device)
    return positions[None, :] - positions[:, None] + side - 1


class MbConv(nn.Module):
    """Pre-norm inverted residual; strides pool the shortcut."""

    def __init__(self, in_chs: int, out_chs: int, stride: int, config: Config, se: bool, drop_path: float) -> None:
        super().__init__()
        hidden, eps = EXPANSION * out_chs, config.norm_eps
        self.expand = NormConv(nn.BatchNorm2d(in_chs, eps=eps), in_chs, hidden)
        self.norm1, self.act1 = nn.BatchNorm2d(hidden, eps=eps), nn.GELU()
        self.dw = create_conv2d(hidden, hidden, 3, stride=stride, padding="same", depthwise=True)
        self.norm2, self.act2 = nn.BatchNorm2d(hidden, eps=eps), nn.GELU()
        self.se = SqueezeExcite(hidden, rd_channels=int(SE_RATIO * out_chs), act_layer=nn.SiLU) if se else nn.Identity()
        self.shrink = nn.Conv2d(hidden, out_chs, 1)
        # TensorFlow's mean of a window that reaches over the edge counts only what lies inside
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        self.shortcut = nn.Conv2d(in_chs, out_chs, 1) if in_chs != out_chs else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act2(self.norm2(self.dw(self.act1(self.norm1(self.expand(x))))))
        return self.shortcut(self.pool(x)) + self.drop_path(self.shrink(self.se(y)))


class Block(nn.Module):
    """An inverted residual and, in late stages, attention; there is no MLP."""

    def __init__(self, in_chs: int, stage: int, stride: int, config: Config, drop_path: float) -> None:
        super().__init__()
        dim, side = config.widths[stage], config.position_sizes[stage]
        self.conv = MbConv(in_chs, dim, stride, config, se=not side, drop_path=drop_path)
        self.norm = LayerNorm2d(dim, eps=1e-5) if side else None
        self.attn: nn.Module | None = None
        if side:
            plain = MapAttention(dim, dim // HEAD_DIM, HEAD_DIM, qkv_bias=True)
            self.attn = BiasedAttention(dim, side) if config.position_bias else plain
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is None or self.attn is None:
            return x
        return x + self.drop_path(self.attn(self.norm(x)))


class Moat(Pyramid):
    """Tiny-MOAT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    head_class = PoolNormHead

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Stem(in_chans, cfg.stem_width, cfg.norm_eps)

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        before, width = cfg.widths[stage - 1] if stage > 0 else cfg.stem_width, cfg.widths[stage]
        return Stage([Block(width if j else before, stage, 1 if j else 2, cfg, rate) for j, rate in enumerate(rates)])

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=1e-5)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Moat; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Moat, config, len(config.depths), first_conv="stem.conv1", **kwargs)


_RENAMES = Renames(
    (r"^(?:moat/stem/)?conv_0/", "stem.conv1."),
    (r"^(?:moat/stem/)?conv_1/", "stem.conv2."),
    (r"^(?:moat/stem/)?norm_0/", "stem.norm."),
    (r"^moat/block_0(\d)_0?(\d+)(?:/|$)", r"stages.\1.blocks.\2."),
    (r"\.pre_norm/", ".conv.expand.norm."),
    (r"\.expand_conv/", ".conv.expand.conv."),
    (r"\.expand_norm/", ".conv.norm1."),
    (r"\.depthwise_conv/", ".conv.dw."),
    (r"\.depthwise_norm/", ".conv.norm2."),
    (r"\.se/reduce_conv2d/", ".conv.se.fc1."),
    (r"\.se/expand_conv2d/", ".conv.se.fc2."),
    (r"\.shrink_conv/", ".conv.shrink."),
    (r"\.shortcut_conv/", ".conv.shortcut."),
    (r"\.attention_norm/", ".norm."),
    (r"\.attention/relative_position_embedding$", ".attn.table"),
    (r"\.attention/o/", ".attn.proj."),
    (r"^moat/final_layer_norm/", "head.norm."),
    (r"^moat/logits_head/", "head.fc."),
    (r"(?:depthwise_)?kernel$", "weight"),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
    (r"moving_mean$", "running_mean"),
    (r"moving_variance$", "running_var"),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official state dict (TensorFlow names, arrays in PyTorch's order of axes); any other is unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("moat/") for key in state_dict):
        return dict(state_dict)
    renamed = {}
    for key, value in state_dict.items():
        if re.search(r"/attention/[kv]/", key):
            continue
        if joined := re.search(r"/attention/q/(weight|bias)$", key):
            parts = [state_dict[key.replace("/q/", f"/{part}/")] for part in "qkv"]
            name = f"{_RENAMES(key.removesuffix(joined[0]))}attn.qkv.conv.{joined[1]}"
            # [in, h, d] → [h·d, in]
            renamed[name] = torch.cat([_rows(part) if joined[1] == "weight" else part.flatten() for part in parts])
            continue
        new = _RENAMES(key)
        if new.endswith(".attn.proj.weight"):
            value = value.reshape(value.shape[0], -1)[:, :, None, None]
        elif new == "head.fc.weight":
            value = value.flatten(1)
        renamed[new] = value
    return renamed


def _rows(weight: Tensor) -> Tensor:
    return weight.flatten(1).t()[:, :, None, None]
