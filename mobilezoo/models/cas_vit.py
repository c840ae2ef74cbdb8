"""CAS-ViT: a convolutional vision transformer whose attention is additive.

Paper: "CAS-ViT: Convolutional Additive Self-attention Vision Transformers for Efficient Mobile Applications",
arXiv:2408.03703, method section (additive similarity, CATM, block). Official code: Tianfang-Zhang/CAS-ViT, MIT license.

Where it differs from the official code, and why:
- pre-norms sit beside the projection they feed (`NormConv`, `SplitConv`), so that the deployment form folds them;
- the final norm belongs to the head, so that it folds into the classifier; `forward_features` ends before it;
- a network with two heads returns both logits only after `set_distilled_training()`, as timm's DeiT does. Official
  inference, which averages both, is unchanged.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from timm.layers import DropPath
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm, NormConv, SplitConv
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_STRIDE = 4


class Config(ModelConfig):
    """A CAS-ViT as data."""

    family: Literal["cas_vit"]
    depths: tuple[int, ...] = Field(min_length=1, description="blocks per stage")
    widths: tuple[int, ...] = Field(description="channels per stage")
    kernel: int = Field(default=3, gt=0, description="odd side in pixels of every depthwise convolution")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden width of the MLP over the block's width")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every BatchNorm")
    distillation_head: bool = Field(default=False, description="a second classifier; inference averages both")

    _one_per_stage = one_per_stage("widths", like="depths")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd number of pixels")
        return value


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv1 = ConvNorm(in_chs, out_chs // 2, 3, stride=2, bias=True, norm_eps=norm_eps)
        self.act1 = nn.ReLU()
        self.conv2 = ConvNorm(out_chs // 2, out_chs, 3, stride=2, bias=True, norm_eps=norm_eps)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.act2(self.conv2(self.act1(self.conv1(x))))


class SpatialGate(nn.Module):
    """Weigh every position by one learned map (the spatial interaction of CATM)."""

    def __init__(self, dim: int, kernel: int, norm_eps: float) -> None:
        super().__init__()
        self.dw = ConvNorm(dim, dim, kernel, groups=dim, bias=True, norm_eps=norm_eps)
        self.act = nn.ReLU()
        self.gate = nn.Conv2d(dim, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(self.act(self.dw(x))))


class ChannelGate(nn.Module):
    """Weigh every channel by the mixed spatial means (the channel interaction of CATM)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class AdditiveMixer(nn.Module):
    """Convolutional additive token mixer: project(integrate(gated q + gated k) · v); no softmax, no matrix product."""

    def __init__(self, dim: int, kernel: int, norm_eps: float) -> None:
        super().__init__()
        self.qkv = SplitConv(nn.BatchNorm2d(dim, eps=norm_eps), dim, dim, parts=3)
        self.q_gate = nn.Sequential(SpatialGate(dim, kernel, norm_eps), ChannelGate(dim))
        self.k_gate = nn.Sequential(SpatialGate(dim, kernel, norm_eps), ChannelGate(dim))
        self.integrate = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.project = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)
        return self.project(self.integrate(self.q_gate(q) + self.k_gate(k)) * v)


class LocalMixer(nn.Module):
    """1×1 → depthwise → 1×1 before attention (the paper's integration subnet)."""

    def __init__(self, dim: int, kernel: int, norm_eps: float) -> None:
        super().__init__()
        self.mix_in = ConvNorm(dim, dim, bias=True, norm_eps=norm_eps)
        self.dw = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.act = nn.GELU()
        self.mix_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix_out(self.act(self.dw(self.mix_in(x))))


class Mlp(nn.Module):
    """Norm → 1×1 → GELU → 1×1."""

    def __init__(self, dim: int, hidden: int, norm_eps: float) -> None:
        super().__init__()
        self.fc1 = NormConv(nn.BatchNorm2d(dim, eps=norm_eps), dim, hidden, bias=True)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Local mixer, additive attention, MLP: three residual branches; stochastic depth spares the first."""

    def __init__(self, dim: int, config: Config, drop_path: float) -> None:
        super().__init__()
        self.local = LocalMixer(dim, config.kernel, config.norm_eps)
        self.attn = AdditiveMixer(dim, config.kernel, config.norm_eps)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.norm_eps)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.local(x)
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class CasVit(StagedNet):
    """CAS-ViT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32.

    Convolutions keep PyTorch's default initial weights and the classifier is truncated normal (0.02), as officially.
    """

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages, width_in = [], cfg.widths[0]
        for i, (width, rates) in enumerate(zip(cfg.widths, drop_path_rates(drop_path_rate, cfg.depths), strict=True)):
            down = ConvNorm(width_in, width, 3, stride=2, bias=True, norm_eps=cfg.norm_eps) if i > 0 else None
            stages.append(Stage([Block(width, cfg, rate) for rate in rates], down))
            width_in = width
        norm = nn.BatchNorm2d(width_in, eps=cfg.norm_eps)
        super().__init__(
            Stem(in_chans, cfg.widths[0], cfg.norm_eps, min_size=STEM_STRIDE << (len(cfg.depths) - 1)),
            stages,
            NormHead(width_in, num_classes, norm, global_pool, drop_rate, cfg.distillation_head),
            widths=cfg.widths,
            stride=STEM_STRIDE,
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a CasVit; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    classifier = ("head.fc", "head.fc_dist") if config.distillation_head else "head.fc"
    return build_staged(CasVit, config, len(config.depths), classifier=classifier, **kwargs)


_RENAMES = Renames(
    (r"^patch_embed\.0\.", "stem.conv1.conv."),
    (r"^patch_embed\.1\.", "stem.conv1.norm."),
    (r"^patch_embed\.3\.", "stem.conv2.conv."),
    (r"^patch_embed\.4\.", "stem.conv2.norm."),
    (r"\.downsample\.proj\.", ".downsample.conv."),
    (r"\.local_perception\.network\.0\.", ".local.mix_in.conv."),
    (r"\.local_perception\.network\.1\.", ".local.mix_in.norm."),
    (r"\.local_perception\.network\.2\.", ".local.dw."),
    (r"\.local_perception\.network\.4\.", ".local.mix_out."),
    (r"\.norm1\.", ".attn.qkv.norm."),
    (r"\.attn\.qkv\.(?=weight|bias)", ".attn.qkv.conv."),
    (r"\.oper_([qk])\.0\.block\.0\.", r".\1_gate.0.dw.conv."),
    (r"\.oper_([qk])\.0\.block\.1\.", r".\1_gate.0.dw.norm."),
    (r"\.oper_([qk])\.0\.block\.3\.", r".\1_gate.0.gate."),
    (r"\.oper_([qk])\.1\.block\.1\.", r".\1_gate.1.gate."),
    (r"\.attn\.dwc\.", ".attn.integrate."),
    (r"\.attn\.proj\.", ".attn.project."),
    (r"\.norm2\.", ".mlp.fc1.norm."),
    (r"\.mlp\.fc1\.(?=weight|bias)", ".mlp.fc1.conv."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
    (r"^dist_head\.", "head.fc_dist."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`rcvit_*`) state dict; any other is returned unchanged.

    A two-head file for a one-head network gets its heads averaged, which is what official inference computes.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("patch_embed.") for key in state_dict):
        return dict(state_dict)
    renamed = {_rename(key): value for key, value in state_dict.items()}
    head = getattr(model, "head", None)
    if isinstance(head, NormHead) and head.fc_dist is None:
        for part in ("weight", "bias"):
            other = renamed.pop(f"head.fc_dist.{part}", None)
            own = renamed.get(f"head.fc.{part}")
            if other is not None and own is not None:
                renamed[f"head.fc.{part}"] = (own + other) / 2
    return renamed


def _rename(key: str) -> str:
    """Official stages and downsampling layers alternate in one list: network.2i is stage i, 2i-1 the layer before."""
    if match := re.match(r"network\.(\d+)\.(.*)", key):
        index, rest = int(match[1]), match[2]
        key = f"stages.{index // 2}.blocks.{rest}" if index % 2 == 0 else f"stages.{index // 2 + 1}.downsample.{rest}"
    return _RENAMES(key)
