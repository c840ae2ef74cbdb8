"""FFNet: self-attention rebuilt as a feed-forward network of two large depthwise convolutions.

Paper: "MetaMixer Is All You Need", arXiv:2406.02021 (FFNified attention and FFNet). Official code: ysj9909/FFNet,
Apache-2.0. The network is stored in its training form; `fuse()` folds the 7×7 and 3×3 branches and all norms.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from timm.layers import DropPath, LayerScale2d
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import ConvNorm, NormConv, with_weights
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Pyramid, Stage, build_staged

STEM_STRIDE, STEM_WIDTH = 4, 64
LARGE, SMALL = 7, 3
"""Sides in pixels of the branches' kernels."""


class Config(ModelConfig):
    """An FFNet as data."""

    family: Literal["ffnet"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage; each divides the next")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    large_kernels: tuple[bool, ...] = Field(description="stages whose token mixers have 7×7 kernels, else 3×3")
    channel_kernel: Literal[3, 7] = Field(default=3, description="side in pixels of channel mixers' kernels")
    mlp_ratio: float = Field(default=3.0, gt=0, description="hidden width of channel mixers over the block's")
    layer_scale: float | None = Field(default=None, description="initial LayerScale; none where left out")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every BatchNorm")

    _one_per_stage = one_per_stage("depths", "large_kernels")


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2, GELU between them."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv1 = ConvNorm(in_chs, STEM_WIDTH, 3, stride=2, norm_eps=norm_eps)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(STEM_WIDTH, out_chs, 3, stride=2, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.conv2(self.act(self.conv1(x)))


class BranchedDepthwise(nn.Module):
    """7×7 and 3×3 depthwise convolutions, each with a norm, summed; one 7×7 convolution once fused."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.large = ConvNorm(in_chs, out_chs, LARGE, stride, groups=in_chs, norm_eps=norm_eps)
        self.small = ConvNorm(in_chs, out_chs, SMALL, stride, groups=in_chs, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) + self.small(x)

    def fuse(self) -> nn.Conv2d:
        large, small = self.large.fuse(), self.small.fuse()
        assert large.bias is not None
        assert small.bias is not None
        weight = large.weight.detach() + F.pad(small.weight.detach(), [(LARGE - SMALL) // 2] * 4)
        return with_weights(large, weight, large.bias.detach() + small.bias.detach())


class TokenMixer(nn.Module):
    """FFNified attention: 1×1 (queries) → depthwise (coefficients of the keys) → GELU → depthwise (values)."""

    def __init__(self, dim: int, large: bool, norm_eps: float) -> None:
        super().__init__()
        self.query = ConvNorm(dim, dim, norm_eps=norm_eps)
        self.keys = _depthwise(dim, large, norm_eps)
        self.act = nn.GELU()
        self.values = _depthwise(dim, large, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.values(self.act(self.keys(self.query(x))))


def _depthwise(dim: int, large: bool, norm_eps: float) -> nn.Module:
    if large:
        return BranchedDepthwise(dim, dim, norm_eps=norm_eps)
    return nn.Conv2d(dim, dim, SMALL, padding=SMALL // 2, groups=dim)


class ChannelMixer(nn.Module):
    """Depthwise → 1×1 → GELU → 1×1, as in ConvNeXt."""

    def __init__(self, dim: int, config: Config) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.dw = (
            BranchedDepthwise(dim, dim, norm_eps=config.norm_eps)
            if config.channel_kernel == LARGE
            else ConvNorm(dim, dim, SMALL, groups=dim, norm_eps=config.norm_eps)
        )
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.dw(x))))


class Block(nn.Module):
    """Token mixer and channel mixer, each a residual branch, with LayerScale in the large variants."""

    def __init__(self, dim: int, large: bool, config: Config, drop_path: float) -> None:
        super().__init__()
        self.token = TokenMixer(dim, large, config.norm_eps)
        self.token_scale = _layer_scale(dim, config.layer_scale)
        self.channel = ChannelMixer(dim, config)
        self.channel_scale = _layer_scale(dim, config.layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.token_scale(self.token(x)))
        return x + self.drop_path(self.channel_scale(self.channel(x)))


def _layer_scale(dim: int, init_value: float | None) -> nn.Module:
    return nn.Identity() if init_value is None else LayerScale2d(dim, init_value)


class Downsample(nn.Module):
    """Strided branched depthwise convolution, then a residual branch of norm and 1×1."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float) -> None:
        super().__init__()
        self.dw = BranchedDepthwise(in_chs, out_chs, stride=2, norm_eps=norm_eps)
        self.pw = NormConv(nn.BatchNorm2d(out_chs, eps=norm_eps), out_chs, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dw(x)
        return x + self.pw(x)


class FFNet(Pyramid):
    """FFNet for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Stem(in_chans, cfg.widths[0], cfg.norm_eps, min_size=1)

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        width, large = cfg.widths[stage], cfg.large_kernels[stage]
        down = Downsample(cfg.widths[stage - 1], width, cfg.norm_eps) if stage > 0 else None
        return Stage([Block(width, large, cfg, rate) for rate in rates], down)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return nn.BatchNorm2d(cfg.widths[-1], eps=cfg.norm_eps)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an FFNet; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(FFNet, config, len(config.depths), **kwargs)


_RENAMES = Renames(
    (r"^patch_embed\.0\.", "stem.conv1."),
    (r"^patch_embed\.2\.", "stem.conv2."),
    (r"\.proj\.0\.", ".dw."),
    (r"\.proj\.1\.conv\.", ".pw."),
    (r"\.token_mixer\.0\.layer_scale$", ".token_scale.gamma"),
    (r"\.channel_mixer\.layer_scale$", ".channel_scale.gamma"),
    (r"\.token_mixer\.0\.main\.fc\.", ".token.query."),
    (r"\.token_mixer\.0\.main\.conv1\.", ".token.keys."),
    (r"\.token_mixer\.0\.main\.conv2\.", ".token.values."),
    (r"\.channel_mixer\.main\.conv\.(?=c|bn)", ".channel.dw.plain."),
    (r"\.channel_mixer\.main\.conv\.", ".channel.dw."),
    (r"\.channel_mixer\.main\.", ".channel."),
    (r"\.(dw|keys|values)\.conv1\.", r".\1.small."),
    (r"\.(dw|keys|values)\.conv\.", r".\1.large."),
    (r"\.dw\.plain\.", ".dw."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"\.bn\.", ".norm."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`ffnet_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("patch_embed.") for key in state_dict):
        return dict(state_dict)
    renamed = {_rename(key): value for key, value in state_dict.items()}
    return {key: value.flatten() if key.endswith(".gamma") else value for key, value in renamed.items()}


def _rename(key: str) -> str:
    """Our key; official stages but the first begin with their downsampling layer."""
    if match := re.match(r"stages\.(\d+)\.(\d+)\.(.*)", key):
        stage, index = int(match[1]), int(match[2]) - (int(match[1]) > 0)
        key = f"stages.{stage}.downsample.{match[3]}" if index < 0 else f"stages.{stage}.blocks.{index}.{match[3]}"
    return _RENAMES(key)
