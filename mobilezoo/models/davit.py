"""DaViT: attention between the positions of a window and attention between channels, in turns.

Paper: "DaViT: Dual Attention Vision Transformers", ECCV 2022, arXiv:2204.03645 (section 3). Official code:
dingmyu/davit, MIT. Official files and timm's (davit.py, Apache-2.0) of the same networks load.

Where it differs from the official code, and why: maps stay [b, c, h, w] and linear layers are 1×1 convolutions, so that
phones need no transposes; windows are cut by moves of whole rows, so that no tensor has more than four dimensions.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.channel_attention import ChannelAttention
from mobilezoo.layers.head import PoolNormHead
from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.window_attention import WindowAttention
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Pyramid, Stage, build_staged

STEM_STRIDE, MLP_RATIO, NORM_EPS = 4, 4, 1e-5


class Config(ModelConfig):
    """A DaViT as data."""

    family: Literal["davit"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="pairs of a window and a channel block per stage")
    heads: tuple[int, ...] = Field(description="attention heads per stage")
    window: int = Field(default=7, gt=0, description="side of a window in positions")

    _one_per_stage = one_per_stage("depths", "heads")

    @field_validator("heads")
    @classmethod
    def _divide_the_widths(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        for heads, width in zip(value, info.data.get("widths", ()), strict=False):
            if heads < 1 or width % heads:
                raise ValueError(f"{heads} heads do not divide a stage of {width} channels")
        return value


class Stem(nn.Module):
    """7×7 convolution of stride 4 → LayerNorm; sides are filled up to multiples of 4 with zeros."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 7, STEM_STRIDE, 3)
        self.norm = LayerNorm2d(out_chs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.norm(self.conv(_filled(x, STEM_STRIDE)))


class Downsample(nn.Module):
    """LayerNorm → 2×2 convolution of stride 2; odd sides are filled up with zeros."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(in_chs, eps=NORM_EPS)
        self.conv = nn.Conv2d(in_chs, out_chs, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_filled(self.norm(x), 2))


def _filled(x: Tensor, step: int) -> Tensor:
    """Zeros at the bottom and right up to multiples of `step`; nothing where there is nothing to fill."""
    below, right = (-side % step for side in x.shape[2:])
    return F.pad(x, (0, right, 0, below)) if below or right else x


class Position(nn.Module):
    """Identity + depthwise 3×3: encodes where a position lies, relative to its neighbours."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class SpatialAttention(nn.Module):
    """Attention inside windows of neighbours, projected."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.windows = WindowAttention(dim, dim, dim // num_heads, window, ("close",), nn.Identity())
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.windows(x))


class Block(nn.Module):
    """Pre-norm attention and MLP, each behind a position encoding."""

    def __init__(self, dim: int, attn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.cpe1 = Position(dim)
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.attn = attn
        self.cpe2 = Position(dim)
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp = MapMlp(dim, MLP_RATIO * dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe1(x)
        x = self.cpe2(x + self.drop_path(self.attn(self.norm1(x))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DaViT(Pyramid):
    """DaViT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    head_class = PoolNormHead

    @staticmethod
    def depths(cfg: Config) -> tuple[int, ...]:
        return tuple(2 * depth for depth in cfg.depths)

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Stem(in_chans, cfg.widths[0])

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        dim, heads = cfg.widths[stage], cfg.heads[stage]
        blocks: list[nn.Module] = []
        for j, rate in enumerate(rates):
            attn = ChannelAttention(dim, heads) if j % 2 else SpatialAttention(dim, heads, cfg.window)
            blocks.append(Block(dim, attn, rate))
        return Stage(blocks, Downsample(cfg.widths[stage - 1], dim) if stage > 0 else None)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=NORM_EPS)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a DaViT; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(DaViT, config, len(config.depths), first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^patch_embeds\.0\.proj\.", "stem.conv."),
    (r"^patch_embeds\.0\.norm\.", "stem.norm."),
    (r"^patch_embeds\.(\d+)\.proj\.", r"stages.\1.downsample.conv."),
    (r"^patch_embeds\.(\d+)\.norm\.", r"stages.\1.downsample.norm."),
    (r"^main_blocks\.(\d+)\.", r"stages.\1.blocks."),
    (r"\.cpe\.0\.", ".cpe1."),
    (r"\.cpe\.1\.", ".cpe2."),
    (r"\.(cpe\d)\.proj\.", r".\1.conv."),
    (r"^norms\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)
_PAIR = re.compile(r"^stages\.(\d+)\.blocks\.(\d+)\.([01])\.")


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`DaViT_*`) or timm's (`davit_*`) state dict, matrices as kernels; any other is unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(re.match(r"(main_blocks\.\d+|stages\.\d+\.blocks)\.\d+\.[01]\.", key) for key in state_dict):
        return dict(state_dict)
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        new = _RENAMES(key)
        value = value[:, :, None, None] if value.ndim == 2 and not new.startswith("head.") else value
        pair = _PAIR.match(new)
        if pair is None:
            renamed[new] = value
            continue
        new = f"stages.{pair[1]}.blocks.{2 * int(pair[2]) + int(pair[3])}.{new[pair.end() :]}"
        if ".attn.qkv." not in new:
            renamed[new] = value
        elif pair[3] == "1":
            renamed[new.replace(".qkv.", ".qkv.conv.")] = value
        else:
            third = value.shape[0] // 3
            renamed[new.replace(".qkv.", ".windows.qk.conv.")] = value[: 2 * third]
            renamed[new.replace(".qkv.", ".windows.v.")] = value[2 * third :]
    return renamed
