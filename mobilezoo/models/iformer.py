"""iFormer: ConvNeXt-like blocks made light, and single-head modulation attention in late stages.

Paper: "iFormer: Integrating ConvNet and Transformer for Mobile Application", ICLR 2025, arXiv:2501.15369 (section 3 and
table 12). Official code: ChuanyangZheng/iFormer, MIT. Not the Inception Transformer of the same name.

Where it differs from the official code, and why:
- a position encoding, attention and feed-forward part are one block, officially three;
- attention inside windows (only for detection) and LayerScale (only in the largest network) are left out;
- a network with two heads returns both logits only after `set_distilled_training()`, as timm's DeiT does.
"""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm, affine_of
from mobilezoo.layers.head import PoolNormHead
from mobilezoo.layers.modulation_attention import ModulationAttention
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.iformer_official import from_official
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

__all__ = ["Config", "IFormer", "build", "from_official"]

STEM_STRIDE, STEM_KERNEL, STEM_RATIO, KERNEL, NORM_EPS = 4, 5, 4, 7, 1e-5


class Config(ModelConfig):
    """An iFormer as data."""

    family: Literal["iformer"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    convs: tuple[int, ...] = Field(description="convolutional blocks per stage, before those that attend")
    attends: tuple[int, ...] = Field(description="attending blocks per stage")
    tails: tuple[int, ...] = Field(description="convolutional blocks per stage, behind those that attend")
    reductions: tuple[int, ...] = Field(description="a stage's channels over those of queries and keys")
    conv_ratio: int = Field(gt=0, description="hidden width of convolutional blocks over their width")
    mlp_ratio: int = Field(gt=0, description="hidden width of feed-forward parts over the block's")
    distillation_head: bool = Field(default=False, description="a second classifier; inference averages both")

    @field_validator("convs", "attends", "tails", "reductions")
    @classmethod
    def _one_per_stage(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        if len(value) != len(info.data.get("widths", value)):
            raise ValueError(f"one value per stage, {len(info.data['widths'])} as in widths")
        return value

    def branches(self, stage: int) -> int:
        """Official blocks of a stage, of which stochastic depth counts every one."""
        return self.convs[stage] + 3 * self.attends[stage] + self.tails[stage]


class Stem(nn.Module):
    """5×5 convolution of stride 2, then a widening 5×5 of stride 2 and a projection (a fused inverted bottleneck)."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        half = out_chs // 2
        self.conv1 = ConvNorm(in_chs, half, STEM_KERNEL, stride=2)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(half, STEM_RATIO * half, STEM_KERNEL, stride=2)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(STEM_RATIO * half, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


class ConvBlock(nn.Module):
    """x + (depthwise 7×7 → 1×1 → GELU → 1×1), a BatchNorm behind every convolution."""

    def __init__(self, dim: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.dw = ConvNorm(dim, dim, KERNEL, groups=dim)
        self.mlp = NormMlp(dim, ratio)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.dw(x)))


class NormMlp(nn.Module):
    """1×1 → GELU → 1×1, a BatchNorm behind both."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = ConvNorm(dim, ratio * dim)
        self.act = nn.GELU()
        self.fc2 = ConvNorm(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Position(nn.Module):
    """Identity + depthwise 3×3 with BatchNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class AttentionBlock(nn.Module):
    """Position encoding, single-head modulation attention, feed-forward part: three residual branches."""

    def __init__(self, dim: int, reduction: int, ratio: int, drop_paths: tuple[float, float]) -> None:
        super().__init__()
        self.cpe = Position(dim)
        self.attn = ModulationAttention(dim, reduction)
        self.mlp = NormMlp(dim, ratio)
        self.drop_path1, self.drop_path2 = (DropPath(rate) if rate > 0 else nn.Identity() for rate in drop_paths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe(x)
        x = x + self.drop_path1(self.attn(x))
        return x + self.drop_path2(self.mlp(x))


class Head(PoolNormHead):
    """Pool → BatchNorm → classifier, once or, with a second head for a teacher, twice."""

    def __init__(
        self, num_features: int, num_classes: int, global_pool: str, drop_rate: float, distillation: bool
    ) -> None:
        norm = nn.BatchNorm2d(num_features, eps=NORM_EPS)
        super().__init__(num_features, num_classes, norm, global_pool, drop_rate, distillation)
        self.norm_dist = nn.BatchNorm2d(num_features, eps=NORM_EPS) if distillation else None

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """[b, c, H, W] → [b, num_classes], or [b, c] for `pre_logits`."""
        if pre_logits or self.norm_dist is None or not isinstance(self.fc_dist, nn.Linear):
            return super().forward(x, pre_logits)
        pooled = self.pool(x)
        own = self.fc(self.drop(self.norm(pooled[:, :, None, None]).flatten(1)))
        other = self.fc_dist(self.drop(self.norm_dist(pooled[:, :, None, None]).flatten(1)))
        return (own, other) if self.training and self.distilled_training else (own + other) / 2

    def fuse(self) -> "Head":
        """One classifier that holds the mean of both and their norms."""
        fused = super().fuse()
        assert isinstance(fused, Head)
        if self.norm_dist is not None and isinstance(self.fc_dist, nn.Linear) and isinstance(fused.fc, nn.Linear):
            scale, shift = affine_of(self.norm_dist)
            weight = self.fc_dist.weight.detach().double()
            bias = self.fc_dist.bias.detach().double() + weight @ shift
            fused.fc.weight.data.copy_((fused.fc.weight.detach().double() + weight * scale) / 2)
            fused.fc.bias.data.copy_((fused.fc.bias.detach().double() + bias) / 2)
            fused.fc_dist, fused.norm_dist, fused.distillation = None, None, False
        return fused


class IFormer(StagedNet):
    """iFormer for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages = []
        counts = tuple(cfg.branches(i) for i in range(len(cfg.widths)))
        for i, rates in enumerate(drop_path_rates(drop_path_rate, counts)):
            down = ConvNorm(cfg.widths[i - 1], cfg.widths[i], 3, stride=2) if i > 0 else None
            stages.append(Stage(_blocks(cfg, i, rates), down))
        width = cfg.widths[-1]
        super().__init__(
            Stem(in_chans, cfg.widths[0]),
            stages,
            Head(width, num_classes, global_pool, drop_rate, cfg.distillation_head),
            widths=cfg.widths,
            stride=STEM_STRIDE,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)


def _blocks(cfg: Config, stage: int, rates: list[float]) -> list[nn.Module]:
    """A stage's blocks; `rates` are stochastic depth's, one per official block."""
    dim, convs, attends = cfg.widths[stage], cfg.convs[stage], cfg.attends[stage]
    first, last = rates[:convs], rates[convs + 3 * attends :]
    between = [(rates[j + 1], rates[j + 2]) for j in range(convs, convs + 3 * attends, 3)]
    return [
        *(ConvBlock(dim, cfg.conv_ratio, rate) for rate in first),
        *(AttentionBlock(dim, cfg.reductions[stage], cfg.mlp_ratio, pair) for pair in between),
        *(ConvBlock(dim, cfg.conv_ratio, rate) for rate in last),
    ]


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an IFormer; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    heads = ("head.fc", "head.fc_dist") if config.distillation_head else "head.fc"
    depth = len(config.widths)
    return build_staged(IFormer, config, depth, classifier=heads, first_conv="stem.conv1.conv", **kwargs)
