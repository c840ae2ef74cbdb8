"""EMOv2: inverted residual blocks that carry window attention in their expansion.

Paper: "EMOv2: Pushing 5M Vision Model Frontier", arXiv:2412.06674, §3 (improved inverted residual mobile block, i2RMB,
and its spanning attention). Official code: zhangzjn/EMOv2, no license stated; this file is written from the paper and
from measured facts.

Where it differs from the official code, and why:
- windows are cut with tensors of at most four dimensions, and the scale multiplies the queries, which are smaller than
  the attention map: phone runtimes need the first and gain from the second;
- pre-norms and LayerScale sit beside the convolution they fold into; the final norm belongs to the head;
- the map's remainder is padded with zeros and not masked, exactly as officially: the window is part of the definition,
  7 for the 224-pixel networks and 8 for those of 256 and 512.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm, NormConv, ScaledConv
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.window_attention import Form, WindowAttention
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_STRIDE = 2
FORMS: dict[str, tuple[Form, ...]] = {
    "none": (),
    "remote": ("remote",),
    "close": ("close",),
    "hybrid": ("remote", "close"),
}
ACTS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}


class Config(ModelConfig):
    """An EMOv2 as data. The first block of a stage halves the map, has no attention and twice the expansion."""

    family: Literal["emov2"]
    stem_width: int = Field(gt=0, description="channels after the stem")
    depths: tuple[int, ...] = Field(min_length=1, description="blocks per stage")
    widths: tuple[int, ...] = Field(description="channels per stage")
    expansions: tuple[float, ...] = Field(description="inner width over a block's input width, per stage")
    kernels: tuple[int, ...] = Field(description="odd side in pixels of the depthwise convolution, per stage")
    norms: tuple[Literal["batch", "layer"], ...] = Field(
        description="pre-norm per stage; the last one ends the network"
    )
    acts: tuple[Literal["silu", "gelu", "relu"], ...] = Field(description="activation after the expansion, per stage")
    attention: tuple[Literal["none", "remote", "close", "hybrid"], ...] = Field(
        description="attention in the expansion, per stage: strided windows, neighbourhoods, both summed, or none"
    )
    head_dims: tuple[int, ...] = Field(description="query channels per attention head, per stage")
    window: int = Field(gt=0, description="side of an attention window, in tokens")
    layer_scale: float = Field(default=1e-6, gt=0, description="initial LayerScale")
    norm_eps: float = Field(default=1e-6, gt=0, description="epsilon of every norm")
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth unless the caller sets it")

    _one_per_stage = one_per_stage(
        "widths", "expansions", "kernels", "norms", "acts", "attention", "head_dims", like="depths"
    )

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(kernel <= 0 or kernel % 2 == 0 for kernel in value):
            raise ValueError("odd numbers of pixels")
        return value

    @field_validator("head_dims")
    @classmethod
    def _whole_heads(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        data = info.data
        if {"widths", "expansions", "attention"} <= data.keys():
            for dim, width, ratio, form in zip(
                value, data["widths"], data["expansions"], data["attention"], strict=True
            ):
                if form != "none" and (dim <= 0 or width % dim or int(width * ratio) % (width // dim)):
                    raise ValueError(f"whole heads: {dim} channels per head do not fit width {width} (×{ratio})")
        return value


class Stem(nn.Module):
    """3×3 convolution of stride 2, then a depthwise separable one."""

    def __init__(self, in_chs: int, out_chs: int, norm_eps: float, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv1 = ConvNorm(in_chs, out_chs, 3, stride=2, bias=True, norm_eps=norm_eps)
        self.act1 = nn.SiLU()
        self.dw = ConvNorm(out_chs, out_chs, 3, groups=out_chs, norm_eps=norm_eps)
        self.act2 = nn.SiLU()
        self.pw = nn.Conv2d(out_chs, out_chs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.pw(self.act2(self.dw(self.act1(self.conv1(x)))))


class Block(nn.Module):
    """i2RMB: norm → expand (1×1 convolution or attention) → depthwise (+ inner skip) → project → LayerScale (+ skip).

    Skips exist where the shape is kept; LayerScale acts with and without them.
    """

    def __init__(self, in_chs: int, out_chs: int, stage: int, cfg: Config, downsample: bool, drop_path: float) -> None:
        super().__init__()
        self.has_skip = not downsample
        mid_chs = int(in_chs * cfg.expansions[stage] * (2 if downsample else 1))
        forms = () if downsample else FORMS[cfg.attention[stage]]
        norm, act = _norm(cfg.norms[stage], in_chs, cfg.norm_eps), ACTS[cfg.acts[stage]]()
        self.expand = nn.Sequential(
            OrderedDict(norm=norm, attn=WindowAttention(in_chs, mid_chs, cfg.head_dims[stage], cfg.window, forms, act))
            if forms
            else OrderedDict(conv=NormConv(norm, in_chs, mid_chs, bias=True), act=act)
        )
        stride = 2 if downsample else 1
        self.dw = ConvNorm(mid_chs, mid_chs, cfg.kernels[stage], stride, groups=mid_chs, norm_eps=cfg.norm_eps)
        self.act = nn.SiLU()
        self.project = ScaledConv(mid_chs, out_chs, cfg.layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path > 0 and self.has_skip else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        local = self.act(self.dw(y))
        if not self.has_skip:
            return self.project(local)
        return x + self.drop_path(self.project(y + local))


class EmoV2(StagedNet):
    """EMOv2 for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32.

    Convolutions keep PyTorch's default initial weights, LayerScale starts at 1e-6, the classifier is truncated normal
    (0.02), as officially.
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
        stages, width_in = [], cfg.stem_width
        for i, width in enumerate(cfg.widths):
            blocks = [
                Block(width if j else width_in, width, i, cfg, downsample=j == 0, drop_path=rate)
                for j, rate in enumerate(rates[i])
            ]
            stages.append(Stage(list(blocks)))
            width_in = width
        norm = _norm(cfg.norms[-1], width_in, cfg.norm_eps)
        super().__init__(
            Stem(in_chans, cfg.stem_width, cfg.norm_eps, min_size=STEM_STRIDE << len(cfg.depths)),
            stages,
            NormHead(width_in, num_classes, norm, global_pool, drop_rate),
            widths=cfg.widths,
            stride=2 * STEM_STRIDE,
        )


def _norm(kind: str, width: int, eps: float) -> nn.Module:
    norm: nn.Module = nn.BatchNorm2d(width, eps=eps) if kind == "batch" else LayerNorm2d(width, eps=eps)
    return norm


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build an EmoV2; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(EmoV2, config, len(config.depths), **kwargs)


_BLOCK_RENAMES = Renames(
    (r"^eops\.0\.net\.conv\.", "expand.conv.conv."),
    (r"^eops\.0\.qk\.conv\.", "expand.attn.qk.conv."),
    (r"^eops\.0\.v\.conv\.", "expand.attn.v."),
    (r"^conv_local\.", "dw."),
    (r"^proj\.conv\.", "project.conv."),
    (r"^ls\.gamma$", "project.gamma"),
)
_STEM_RENAMES = {"stage0.0.": "stem.conv1.", "stage0.1.": "stem.dw.", "stage0.2.conv.": "stem.pw."}


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`EMO2_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("stage0.") for key in state_dict):
        return dict(state_dict)
    attended = {match[0] for key in state_dict if (match := re.match(r"stage\d+\.\d+\.(?=eops\.0\.qk\.)", key))}
    renamed = {}
    for key, value in state_dict.items():
        new = _rename(key, attended)
        renamed[new] = value.flatten() if new.endswith(".gamma") else value
    return renamed


def _rename(key: str, attended: set[str]) -> str:
    """Our key; `attended` holds the prefixes of the blocks with attention, whose norm stands alone."""
    for old, new in _STEM_RENAMES.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    if match := re.match(r"(stage(\d+)\.(\d+)\.)(.*)", key):
        rest = match[4]
        if rest.startswith("norm."):
            # LayerNorm2d wraps a LayerNorm officially: norm.norm.weight
            rest = ("expand.norm." if match[1] in attended else "expand.conv.norm.") + rest.split(".")[-1]
        return f"stages.{int(match[2]) - 1}.blocks.{match[3]}.{_BLOCK_RENAMES(rest)}"
    if key.startswith("norm."):
        return "head.norm." + key.split(".")[-1]
    return f"head.fc.{key.removeprefix('head.')}" if key in ("head.weight", "head.bias") else key
