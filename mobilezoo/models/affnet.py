"""AFFNet: tokens are mixed by a filter in the frequency domain that the map itself chooses.

Paper: "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023, arXiv:2307.14008 (AFF token mixer,
section 3; AFFNet). Official code: microsoft/TokenMixers, "Adaptive Frequency Filters" (MIT), made of apple/ml-cvnets.

The norm of the released models is not settled: the code's default is one mean over channels and map ("map"), the
command line's default one over channels ("channel", which divides by std + eps). Both forms exist here (`_layernorm` is
"channel"), with equal keys. The activation is the one of the MobileViT recipes, SiLU; the released recipe states it
nowhere that could be read.

Where it differs from the official code, and why: Fourier transforms are products with constant matrices and complex
numbers are pairs of real ones, which every phone format takes.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import ConvNorm
from mobilezoo.layers.frequency import irfft2, rfft2
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_WIDTH, HEAD_EXPANSION, MAX_HEAD_WIDTH = 16, 4, 960
FILTER_GROUPS = 8
"""Blocks of the filter's block-diagonal layers."""
THRESHOLD = 0.01
"""Filter values closer to 0 than this become 0 (soft shrinkage)."""


class Config(ModelConfig):
    """An AFFNet as data: two stages of inverted residuals, then stages of one that strides and filter units."""

    family: Literal["affnet"]
    widths: tuple[int, ...] = Field(min_length=3, description="channels per stage")
    depths: tuple[int, ...] = Field(description="inverted residuals of the first two stages, then filter units")
    expansion: float = Field(gt=0, description="hidden over input width of inverted residuals outside the units")
    unit_expansion: float = Field(default=2.0, gt=0, description="the same inside filter units")
    norm: Literal["map", "channel"] = Field(default="map", description="what norms of filter units take the mean over")

    _one_per_stage = one_per_stage("depths")


class Stem(nn.Module):
    """3×3 convolution of stride 2."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chs, out_chs, 3, stride=2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.act(self.conv1(x))


class InvertedResidual(nn.Module):
    """1×1 → depthwise 3×3 → 1×1, a residual where the shape is kept."""

    def __init__(self, in_chs: int, out_chs: int, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = _multiple_of_8(in_chs * expansion)
        self.expand, self.act1 = ConvNorm(in_chs, hidden), nn.SiLU()
        self.dw, self.act2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden), nn.SiLU()
        self.project = ConvNorm(hidden, out_chs)
        self.has_skip = stride == 1 and in_chs == out_chs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.act2(self.dw(self.act1(self.expand(x)))))
        return x + y if self.has_skip else y


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of it."""
    rounded = max(8, int(round(width) + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * round(width) else rounded


class ChannelNorm(nn.Module):
    """(x - mean) / (std + eps) over the channels of each position, then scale and shift: the official code's form."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centered = x - x.mean(dim=1, keepdim=True)
        std = centered.square().mean(dim=1, keepdim=True).sqrt()
        return centered / (std + self.eps) * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


def _norm(kind: str, dim: int) -> nn.Module:
    return nn.GroupNorm(1, dim, eps=1e-5) if kind == "map" else ChannelNorm(dim)


class ComplexLayer(nn.Module):
    """A block-diagonal complex 1×1 convolution with bias on a pair (real, imaginary)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.real = nn.Conv2d(dim, dim, 1, groups=FILTER_GROUPS, bias=False)
        self.imag = nn.Conv2d(dim, dim, 1, groups=FILTER_GROUPS, bias=False)
        self.bias_real, self.bias_imag = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        for tensor in self.parameters():
            nn.init.normal_(tensor, std=0.02)

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """Product of the complex weights and a complex map [b, dim, h, w], plus the bias.

        Args:
            real: real part of the map.
            imag: imaginary part of the map.

        Returns:
            (real, imaginary) of the result, in the same shape.
        """
        shift_real, shift_imag = (bias.reshape(1, -1, 1, 1) for bias in (self.bias_real, self.bias_imag))
        return self.real(real) - self.imag(imag) + shift_real, self.real(imag) + self.imag(real) + shift_imag


class FrequencyFilter(nn.Module):
    """x + the map whose spectrum is x's times a filter computed from that very spectrum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer1, self.act = ComplexLayer(dim), nn.SiLU()
        self.layer2 = ComplexLayer(dim)

    def forward(self, x: Tensor) -> Tensor:
        real, imag = rfft2(x)
        hidden_real, hidden_imag = self.layer1(real, imag)
        mask_real, mask_imag = (_shrink(part) for part in self.layer2(self.act(hidden_real), self.act(hidden_imag)))
        filtered = mask_real * real - mask_imag * imag, mask_real * imag + mask_imag * real
        return x + irfft2(*filtered, width=x.shape[-1])


def _shrink(x: Tensor) -> Tensor:
    """Soft shrinkage of two rectifiers."""
    return F.relu(x - THRESHOLD) - F.relu(-x - THRESHOLD)


class Unit(nn.Module):
    """Norm → inverted residual → norm → frequency filter, one residual around all."""

    def __init__(self, dim: int, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm1 = _norm(config.norm, dim)
        self.mlp = InvertedResidual(dim, dim, 1, config.unit_expansion)
        self.norm2 = _norm(config.norm, dim)
        self.filter = FrequencyFilter(dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.filter(self.norm2(self.mlp(self.norm1(x)))))


class FilterBlock(nn.Module):
    """Filter units, a norm and a projection, joined with the input and mixed by a 1×1 convolution."""

    def __init__(self, dim: int, config: Config, rates: list[float]) -> None:
        super().__init__()
        self.units = nn.Sequential(*(Unit(dim, config, rate) for rate in rates))
        self.norm = _norm(config.norm, dim)
        self.proj = ConvNorm(dim, dim)
        self.fuse_conv, self.act = ConvNorm(2 * dim, dim), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fuse_conv(torch.cat([x, self.proj(self.norm(self.units(x)))], dim=1)))


class AffNet(StagedNet):
    """AFFNet for classification; `feature_info` lists the stages' outputs at strides 2, 4, 8, 16, 32."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        in_chs, stages = STEM_WIDTH, []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            width, blocks = cfg.widths[i], []
            for j in range(cfg.depths[i] if i < 2 else 1):
                blocks.append(InvertedResidual(in_chs, width, 2 if i and not j else 1, cfg.expansion))
                in_chs = width
            stages.append(Stage([*blocks, *([FilterBlock(width, cfg, rates)] if i >= 2 else [])]))
        hidden = min(HEAD_EXPANSION * in_chs, MAX_HEAD_WIDTH)
        norm = nn.Sequential(ConvNorm(in_chs, hidden), nn.SiLU())
        super().__init__(
            Stem(in_chans, STEM_WIDTH),
            stages,
            NormHead(hidden, num_classes, norm, global_pool, drop_rate),
            widths=cfg.widths,
            stride=2,
        )
        self.head_hidden_size = hidden


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an AffNet; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(AffNet, config, len(config.depths), **kwargs)


_RENAMES = Renames(
    (r"^conv_1\.", "stem.conv1."),
    (r"^layer_(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks."),
    (r"\.exp_1x1\.", ".expand."),
    (r"\.conv_3x3\.", ".dw."),
    (r"\.red_1x1\.", ".project."),
    (r"\.global_rep\.(\d+)\.(?=weight|bias)", ".norm."),
    (r"\.global_rep\.", ".units."),
    (r"\.conv_proj\.", ".proj."),
    (r"\.fusion\.", ".fuse_conv."),
    (r"^conv_1x1_exp\.", "head.norm.0."),
    (r"^classifier\.fc\.", "head.fc."),
    (r"\.block\.", "."),
    (r"\.block\.", "."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official state dict and cut the filters' complex tensors; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("layer_1.") for key in state_dict):
        return dict(state_dict)
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        new = _RENAMES(key)
        if match := re.fullmatch(r"(.*\.filter)\.([wb])([12])", new):
            prefix = f"{match[1]}.layer{match[3]}"
            for part, name in zip(value, ("real", "imag"), strict=True):
                if match[2] == "b":
                    renamed[f"{prefix}.bias_{name}"] = part.flatten()
                else:  # [group, in, out] → [group · out, in, 1, 1]
                    renamed[f"{prefix}.{name}.weight"] = part.transpose(1, 2).flatten(0, 1)[:, :, None, None]
        else:
            renamed[new] = value
    return renamed
