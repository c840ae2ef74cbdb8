"""MobileMamba: a three-stage convolutional network whose blocks mix wavelets, a state-space scan and local kernels.

Paper: "MobileMamba: Lightweight Multi-Receptive Visual Mamba Network", arXiv:2411.15941, §3 (three stages, MRFFI
module, block). Official code: lewandofskee/MobileMamba, MIT license.

Where it differs from the official code, and why:
- the scan runs in chunks and the wavelet bands stay apart (see `layers/selective_scan.py`, `layers/wavelet.py`): the
  same numbers from graphs that phone converters take;
- input and gate of the scan are two projections instead of one that is cut, Δ's two directions two linear layers;
- an image's result never depends on the rest of its batch. Officially this holds with CUDA, where the published
  accuracies come from; without it, the forward scans of all images are summed (`cross_merge_fwd` adds [b, d, l] to
  [b, 1, d, l]), so reference outputs made on a CPU are made image by image.
"""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from timm.layers import DropPath, SqueezeExcite
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm
from mobilezoo.layers.head import PoolNormHead
from mobilezoo.layers.selective_scan import SelectiveScan2d
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.wavelet import WaveletConv
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.mobilemamba_official import from_official
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

__all__ = ["Config", "MobileMamba", "build", "from_official"]

STEM_STRIDE = 16
GLOBAL_MULTIPLE = 16
"""Channels of the scan are rounded to a multiple of this."""


class Config(ModelConfig):
    """A MobileMamba as data."""

    family: Literal["mobilemamba"]
    depths: tuple[int, ...] = Field(min_length=1, description="blocks per stage")
    widths: tuple[int, ...] = Field(description="channels per stage; the first a multiple of 8")
    kernels: tuple[int, ...] = Field(description="odd side in pixels of the local and wavelet kernels, per stage")
    global_ratios: tuple[float, ...] = Field(description="share of channels for scan and wavelets, per stage")
    local_ratios: tuple[float, ...] = Field(description="share of channels for the local kernel; the rest is identity")
    scan_expansion: float = Field(default=2.0, gt=0, description="width inside the scan over its channels")
    ffn_ratio: float = Field(default=2.0, gt=0, description="hidden width of each feed-forward part over the block's")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every norm")
    drop_path_rate: float = Field(
        default=0.0, ge=0, lt=1, description="stochastic depth of the last block, if not given"
    )

    _one_per_stage = one_per_stage("widths", "kernels", "global_ratios", "local_ratios", like="depths")

    @field_validator("widths")
    @classmethod
    def _stem_halves(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] % 8 or min(value) <= 0:
            raise ValueError("positive numbers, the first a multiple of 8")
        return value

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(kernel < 1 or kernel % 2 == 0 for kernel in value):
            raise ValueError("odd numbers of pixels")
        return value

    @field_validator("global_ratios", "local_ratios")
    @classmethod
    def _share(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= ratio <= 1 for ratio in value):
            raise ValueError("shares between 0 and 1")
        return value


class Stem(nn.Module):
    """Four 3×3 convolutions of stride 2, a ReLU between each two."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv1 = ConvNorm(in_chs, out_chs // 8, 3, stride=2, norm_eps=norm_eps)
        self.conv2 = ConvNorm(out_chs // 8, out_chs // 4, 3, stride=2, norm_eps=norm_eps)
        self.conv3 = ConvNorm(out_chs // 4, out_chs // 2, 3, stride=2, norm_eps=norm_eps)
        self.conv4 = ConvNorm(out_chs // 2, out_chs, 3, stride=2, norm_eps=norm_eps)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.conv4(self.act(self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Ffn(nn.Module):
    """1×1 → ReLU → 1×1."""

    def __init__(self, dim: int, cfg: Config) -> None:
        super().__init__()
        hidden = int(dim * cfg.ffn_ratio)
        self.pw1 = ConvNorm(dim, hidden, norm_eps=cfg.norm_eps)
        self.act = nn.ReLU()
        self.pw2 = _silent(ConvNorm(hidden, dim, norm_eps=cfg.norm_eps))

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.act(self.pw1(x)))


class LocalConv(nn.Module):
    """Depthwise k×k → ReLU → depthwise 1×1 (MK-DeConv, with one kernel)."""

    def __init__(self, dim: int, kernel: int, norm_eps: float) -> None:
        super().__init__()
        self.dw = ConvNorm(dim, dim, kernel, groups=dim, norm_eps=norm_eps)
        self.act = nn.ReLU()
        self.pw = ConvNorm(dim, dim, groups=dim, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw(self.act(self.dw(x)))


class WideMixer(nn.Module):
    """Scan plus wavelet convolution (WTE-Mamba)."""

    def __init__(self, dim: int, kernel: int, cfg: Config) -> None:
        super().__init__()
        self.scan = SelectiveScan2d(dim, cfg.scan_expansion, norm_eps=cfg.norm_eps)
        self.scale = nn.Parameter(torch.ones(dim, 1, 1))
        self.wavelet = WaveletConv(dim, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.scan(x) * self.scale + self.wavelet(x)


class Mixer(nn.Module):
    """Some channels see the whole map, some a neighbourhood, the rest stay; then ReLU and a projection (MRFFI)."""

    def __init__(self, dim: int, stage: int, cfg: Config) -> None:
        super().__init__()
        wide = _nearest_multiple(int(cfg.global_ratios[stage] * dim), GLOBAL_MULTIPLE)
        local = min(int(cfg.local_ratios[stage] * dim), dim - wide)
        self.parts = nn.ModuleDict()
        if wide:
            self.parts["wide"] = WideMixer(wide, cfg.kernels[stage], cfg)
        if local:
            self.parts["local"] = LocalConv(local, cfg.kernels[stage], cfg.norm_eps)
        if dim - wide - local:
            self.parts["identity"] = nn.Identity()
        self.widths = [width for width in (wide, local, dim - wide - local) if width]
        self.act = nn.ReLU()
        self.proj = _silent(ConvNorm(dim, dim, norm_eps=cfg.norm_eps))

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split(self.widths, dim=1) if len(self.widths) > 1 else (x,)
        mixed = [part(piece) for part, piece in zip(self.parts.values(), pieces, strict=True)]
        return self.proj(self.act(torch.cat(mixed, dim=1)))


class Block(nn.Module):
    """Depthwise, feed-forward, mixer, depthwise, feed-forward, each with its residual, and one residual around all."""

    def __init__(self, dim: int, stage: int, cfg: Config, drop_path: float) -> None:
        super().__init__()
        self.dw0 = Residual(_silent(ConvNorm(dim, dim, 3, groups=dim, norm_eps=cfg.norm_eps)))
        self.ffn0 = Residual(Ffn(dim, cfg))
        self.mixer = Residual(Mixer(dim, stage, cfg))
        self.dw1 = Residual(_silent(ConvNorm(dim, dim, 3, groups=dim, norm_eps=cfg.norm_eps)))
        self.ffn1 = Residual(Ffn(dim, cfg))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x))))))


class PatchMerge(nn.Module):
    """Inverted bottleneck of stride 2 with squeeze-and-excitation."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float) -> None:
        super().__init__()
        hidden = 4 * in_chs
        self.pw1 = ConvNorm(in_chs, hidden, norm_eps=norm_eps)
        self.act = nn.ReLU()
        self.dw = ConvNorm(hidden, hidden, 3, stride=2, groups=hidden, norm_eps=norm_eps)
        self.se = SqueezeExcite(hidden, 0.25)
        self.pw2 = ConvNorm(hidden, out_chs, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.se(self.act(self.dw(self.act(self.pw1(x))))))


class Downsample(nn.Module):
    """Patch merging between two pairs of depthwise convolution and feed-forward part."""

    def __init__(self, in_chs: int, out_chs: int, cfg: Config) -> None:
        super().__init__()
        self.dw0 = Residual(ConvNorm(in_chs, in_chs, 3, groups=in_chs, norm_eps=cfg.norm_eps))
        self.ffn0 = Residual(Ffn(in_chs, cfg))
        self.merge = PatchMerge(in_chs, out_chs, cfg.norm_eps)
        self.dw1 = Residual(ConvNorm(out_chs, out_chs, 3, groups=out_chs, norm_eps=cfg.norm_eps))
        self.ffn1 = Residual(Ffn(out_chs, cfg))

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn1(self.dw1(self.merge(self.ffn0(self.dw0(x)))))


class MobileMamba(StagedNet):
    """MobileMamba for classification; `feature_info` lists the stages' outputs at strides 16, 32, 64.

    Convolutions keep PyTorch's default initial weights, the last norm of every branch in a block starts at zero, the
    classifier is truncated normal (0.02), as officially.
    """

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
    ) -> None:
        rates = drop_path_rates(cfg.drop_path_rate if drop_path_rate is None else drop_path_rate, cfg.depths)
        stages, width_in = [], cfg.widths[0]
        for i, width in enumerate(cfg.widths):
            down = Downsample(width_in, width, cfg) if i > 0 else None
            stages.append(Stage([Block(width, i, cfg, rate) for rate in rates[i]], down))
            width_in = width
        norm = nn.BatchNorm2d(width_in, eps=cfg.norm_eps)
        super().__init__(
            Stem(in_chans, cfg.widths[0], cfg.norm_eps, min_size=STEM_STRIDE << (len(cfg.depths) - 1)),
            stages,
            PoolNormHead(width_in, num_classes, norm, global_pool, drop_rate),
            widths=cfg.widths,
            stride=STEM_STRIDE,
        )

    def no_weight_decay(self) -> set[str]:
        """The scan's D, which is a vector officially; A decays there too. timm exempts biases and norms by itself."""
        return {name for name, _ in self.named_parameters() if name.endswith(".scan.skip")}


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a MobileMamba; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(MobileMamba, config, len(config.depths), **kwargs)


def _nearest_multiple(value: int, of: int) -> int:
    """The nearest multiple; of two equally near ones the larger."""
    return (value + of // 2) // of * of


def _silent(layer: ConvNorm) -> ConvNorm:
    """Start with a branch that adds nothing."""
    nn.init.zeros_(layer.norm.weight)
    return layer
