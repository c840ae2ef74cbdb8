"""NAT and DiNAT: a pyramid whose queries attend to their neighbours, in DiNAT in turns to near and to far ones.

Papers: "Neighborhood Attention Transformer", CVPR 2023, arXiv:2204.07143 (section 3); "Dilated Neighborhood Attention
Transformer", arXiv:2209.15001. Official code: SHI-Labs/Neighborhood-Attention-Transformer, MIT.

Where it differs from the official code, and why: maps stay [b, c, h, w] with linear layers as 1×1 convolutions, and
attention is written with common operators instead of the CUDA kernels of NATTEN (see
`layers/neighborhood_attention.py`): keys are gathered in training, cut out as overlapping tiles once fused.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.neighborhood_attention import NeighborhoodAttention
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames, as_kernel
from mobilezoo.models.staged import Pyramid, Stage, build_staged

NORM_EPS = 1e-5


class Config(ModelConfig):
    """A NAT or DiNAT as data."""

    family: Literal["nat"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    heads: tuple[int, ...] = Field(description="attention heads per stage")
    dilations: tuple[tuple[int, ...], ...] = Field(description="steps between keys, taken in turns, per stage")
    kernel: int = Field(default=7, gt=1, description="odd side of the neighbourhood")
    mlp_ratio: float = Field(default=3.0, gt=0, description="hidden width of MLPs over the block's")

    _one_per_stage = one_per_stage("depths", "heads", "dilations")

    @field_validator("dilations")
    @classmethod
    def _some_each(cls, value: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if any(not steps or min(steps) < 1 for steps in value):
            raise ValueError("every stage needs at least one step, from 1")
        return value

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"kernel is odd, got {value}")
        return value


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2 without activation, then LayerNorm."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs // 2, 3, 2, 1)
        self.conv2 = nn.Conv2d(out_chs // 2, out_chs, 3, 2, 1)
        self.norm = LayerNorm2d(out_chs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.norm(self.conv2(self.conv1(x)))


class Downsample(nn.Module):
    """3×3 convolution of stride 2 → LayerNorm."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 3, 2, 1, bias=False)
        self.norm = LayerNorm2d(out_chs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, stage: int, dilation: int, config: Config, drop_path: float) -> None:
        super().__init__()
        dim = config.widths[stage]
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.attn = NeighborhoodAttention(dim, config.heads[stage], config.kernel, dilation)
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp = MapMlp(dim, int(dim * config.mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Nat(Pyramid):
    """NAT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Stem(in_chans, cfg.widths[0])

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        steps = cfg.dilations[stage]
        blocks: list[nn.Module] = [Block(stage, steps[j % len(steps)], cfg, rate) for j, rate in enumerate(rates)]
        return Stage(blocks, Downsample(cfg.widths[stage - 1], cfg.widths[stage]) if stage > 0 else None)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=NORM_EPS)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Nat; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Nat, config, len(config.depths), first_conv="stem.conv1", **kwargs)


_RENAMES = Renames(
    (r"^patch_embed\.proj\.0\.", "stem.conv1."),
    (r"^patch_embed\.proj\.1\.", "stem.conv2."),
    (r"^patch_embed\.norm\.", "stem.norm."),
    (r"^levels\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"\.attn\.rpb$", ".attn.table"),
    (r"\.attn\.qkv\.", ".attn.qkv.conv."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`nat_*`, `dinat_*`) state dict, matrices as 1×1 kernels; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if "patch_embed.proj.0.weight" not in state_dict:
        return dict(state_dict)
    renamed = {}
    for key, value in state_dict.items():
        new = _rename(key)
        renamed[new] = as_kernel(value, new)
    return renamed


def _rename(key: str) -> str:
    """Our key; officially a stage ends with the downsampling to the next."""
    if match := re.match(r"levels\.(\d+)\.downsample\.(?:reduction|(norm))\.(.*)", key):
        return f"stages.{int(match[1]) + 1}.downsample.{match[2] or 'conv'}.{match[3]}"
    return _RENAMES(key)
