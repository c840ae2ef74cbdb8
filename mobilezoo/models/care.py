"""CARE Transformer: linear attention on a quarter of the channels, convolutions on two more, a memory on the last.

Paper: "CARE Transformer: Mobile-Friendly Linear Visual Transformer via Decoupled Dual Interaction", CVPR 2025,
arXiv:2411.16170 (asymmetrical feature decoupling, dual interaction). Official code: zhouyuan888888/CARE-Transformer, no
license stated.

Where it differs from the official code, and why:
- a network in training returns both heads' logits only after `set_distilled_training()`, as timm's DeiT does;
- the deployment form has one head: the affine parts of both norms and both classifiers become one linear layer.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath
from torch import Tensor, nn

from mobilezoo.layers.foldable import NormConv, SplitConv
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_STRIDE = 4
STRIPE = 11
"""Length in pixels of the kernels that stand for attention in early stages."""


class Config(ModelConfig):
    """A CARE Transformer as data."""

    family: Literal["care"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage, memory included; multiples of 4")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    head_dims: tuple[int, ...] = Field(description="channels per attention head and stage; 0 mixes by 11-pixel stripes")
    ratios: tuple[tuple[int, int], ...] = Field(description="hidden over outer width of both interactions, per stage")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every BatchNorm")
    layer_scale: float = Field(default=1e-6, gt=0, description="initial LayerScale")

    _one_per_stage = one_per_stage("depths", "head_dims", "ratios")


class Stem(nn.Module):
    """Patches of 4×4 pixels."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv = nn.Conv2d(in_chs, out_chs, STEM_STRIDE, STEM_STRIDE)
        self.norm = nn.BatchNorm2d(out_chs, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.norm(self.conv(x))


class LinearAttention(nn.Module):
    """Attention without softmax: q·(kᵀv), with q and k made positive by ELU + 1; the values are the input itself."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = dim // head_dim
        self.qk: nn.Module = SplitConv(None, dim, dim, parts=2, bias=True)
        self.act = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k = (to_heads(self.act(part) + 1.0, self.num_heads) for part in self.qk(x))  # (b h) n d
        v = to_heads(x, self.num_heads)
        norm = torch.bmm(q, k.mean(dim=1, keepdim=True).transpose(1, 2)) + 1e-6  # (b h) n 1
        kv = torch.bmm(k.transpose(1, 2) * (1.0 / (height * width)), v)  # (b h) d d
        return from_heads(torch.bmm(q, kv) / norm, self.num_heads, height, width)


class Stripes(nn.Module):
    """A tall and a wide depthwise convolution, summed."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.tall = nn.Conv2d(dim, dim, (STRIPE, 1), padding=(STRIPE // 2, 0), groups=dim)
        self.wide = nn.Conv2d(dim, dim, (1, STRIPE), padding=(0, STRIPE // 2), groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.tall(x) + self.wide(x)


class TokenMixer(nn.Module):
    """Three equal parts of the features, mixed far (attention or stripes), over 3×3 and over 7×7 pixels."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.part = dim // 3
        self.far = LinearAttention(self.part, head_dim) if head_dim else Stripes(self.part)
        self.near = nn.Conv2d(self.part, self.part, 3, padding=1, groups=self.part)
        self.mid = nn.Conv2d(self.part, self.part, 7, padding=3, groups=self.part)

    def forward(self, x: Tensor) -> Tensor:
        far, near, mid = x.chunk(3, dim=1)
        return torch.cat([self.far(far), self.near(near), self.mid(mid)], dim=1)


class Interaction(nn.Module):
    """Norm → 1×1 → GELU → depthwise 3×3 → 1×1; the network's last one ends before the second 1×1."""

    def __init__(self, dim: int, hidden: int, norm_eps: float, project: bool = True) -> None:
        super().__init__()
        self.fc1 = NormConv(nn.BatchNorm2d(dim, eps=norm_eps), dim, hidden, bias=True)
        self.act = nn.GELU()
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1) if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dw(self.act(self.fc1(x)))
        return y if self.fc2 is None else x + self.fc2(y)


class Block(nn.Module):
    """Mix the features, let them interact, then let features and memory interact; a residual with LayerScale.

    The network's last block has neither residual nor LayerScale and is as wide as its last hidden layer.
    """

    def __init__(self, stage: int, config: Config, drop_path: float, last: bool) -> None:
        super().__init__()
        dim, eps = config.widths[stage], config.norm_eps
        self.memory = dim // 4
        features = dim - self.memory
        first, second = config.ratios[stage]
        self.mix = TokenMixer(features, config.head_dims[stage])
        self.inter1 = Interaction(features, first * features, eps)
        self.inter2 = Interaction(dim, second * dim, eps, project=not last)
        self.gamma = None if last else nn.Parameter(torch.full((dim,), config.layer_scale))
        self.drop_path = DropPath(drop_path) if drop_path > 0 and not last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        memory, features = x.split([self.memory, x.shape[1] - self.memory], dim=1)
        y = self.inter2(torch.cat([memory, self.inter1(self.mix(features))], dim=1))
        return y if self.gamma is None else x + self.drop_path(y * self.gamma.reshape(1, -1, 1, 1))


class Downsample(nn.Module):
    """Norm → convolution of 2×2 pixels, stride 2; an odd last row or column is left out."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_chs, eps=norm_eps)
        self.conv = nn.Conv2d(in_chs, out_chs, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class TwoHeads(NormHead):
    """Pool → GELU → two heads of LayerNorm and classifier, averaged at inference."""

    def __init__(self, num_features: int, num_classes: int, global_pool: str, drop_rate: float) -> None:
        super().__init__(num_features, num_classes, nn.Identity(), global_pool, drop_rate, distillation=True)
        self.act = nn.GELU()
        self.norm_fc: nn.Module = nn.LayerNorm(num_features, eps=1e-6)
        self.norm_dist: nn.Module = nn.LayerNorm(num_features, eps=1e-6)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Feature map → logits [B, num_classes], the mean of both heads.

        In training the pair (class, distillation) is returned if `distilled_training` is set.

        Args:
            x: [B, num_features, H, W].
            pre_logits: return the input of the heads [B, num_features] instead.
        """
        x = self.drop(self.act(self.pool(x)))
        if pre_logits or not isinstance(self.fc, nn.Linear):
            return x
        if self.fc_dist is None:
            return self.fc(self.norm_fc(x))
        both = self.fc(self.norm_fc(x)), self.fc_dist(self.norm_dist(x))
        return both if self.training and self.distilled_training else (both[0] + both[1]) / 2

    def fuse(self) -> "TwoHeads":
        """One classifier that holds the mean of both and the affine parts of their norms."""
        fused = copy.deepcopy(self)
        if not isinstance(self.fc, nn.Linear) or not isinstance(fused.fc, nn.Linear) or self.fc_dist is None:
            return fused
        own, other = _with_affine(self.fc, self.norm_fc), _with_affine(self.fc_dist, self.norm_dist)
        fused.fc_dist, fused.distillation, fused.norm_dist = None, False, nn.Identity()
        fused.norm_fc = nn.LayerNorm(self.num_features, eps=1e-6, elementwise_affine=False).to(self.fc.weight)
        fused.fc.weight.data.copy_((own[0] + other[0]) / 2)
        fused.fc.bias.data.copy_((own[1] + other[1]) / 2)
        return fused


def _with_affine(fc: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(weight, bias), float64, of a norm's affine part and the classifier after it."""
    assert isinstance(fc, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    weight = fc.weight.detach().double()
    return weight * norm.weight.detach().double(), fc.bias.detach().double() + weight @ norm.bias.detach().double()


class Care(StagedNet):
    """CARE Transformer for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages, count = [], len(cfg.widths)
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            down = Downsample(cfg.widths[i - 1], cfg.widths[i], cfg.norm_eps) if i > 0 else None
            ends = [i == count - 1 and j == len(rates) - 1 for j in range(len(rates))]
            stages.append(Stage([Block(i, cfg, r, last) for r, last in zip(rates, ends, strict=True)], down))
        width = cfg.ratios[-1][1] * cfg.widths[-1]
        super().__init__(
            Stem(in_chans, cfg.widths[0], cfg.norm_eps, min_size=STEM_STRIDE << (count - 1)),
            stages,
            TwoHeads(width, num_classes, global_pool, drop_rate),
            widths=(*cfg.widths[:-1], width),
            stride=STEM_STRIDE,
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Care; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    heads = ("head.fc", "head.fc_dist")
    return build_staged(Care, config, len(config.depths), classifier=heads, first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.norm."),
    (r"\.downsample\.0\.", ".downsample.norm."),
    (r"\.downsample\.1\.", ".downsample.conv."),
    (r"\.token_mixer\.dwconvatt_1\.", ".mix.far.tall."),
    (r"\.token_mixer\.dwconvatt_2\.", ".mix.far.wide."),
    (r"\.token_mixer\.dwconv1\.", ".mix.near."),
    (r"\.token_mixer\.dwconv2\.", ".mix.mid."),
    (r"\.token_mixer\.qk\.", ".mix.far.qk.conv."),
    (r"\.inter_layer\.inter([12])_norm\.", r".inter\1.fc1.norm."),
    (r"\.inter_layer\.inter([12])_fc1\.", r".inter\1.fc1.conv."),
    (r"\.inter_layer\.inter([12])_conv\.", r".inter\1.dw."),
    (r"\.inter_layer\.inter([12])_fc2\.", r".inter\1.fc2."),
    (r"^head\.norm\.", "head.norm_fc."),
    (r"^dist_head\.norm\.", "head.norm_dist."),
    (r"^dist_head\.fc\.", "head.fc_dist."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`CARETrans_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("stem.0.") for key in state_dict):
        return dict(state_dict)
    return {_RENAMES(key): value for key, value in state_dict.items()}
