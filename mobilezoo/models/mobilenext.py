"""MobileNeXt: sandglass blocks, which keep the shortcut wide and the 1×1 convolutions narrow.

Paper: Zhou et al., "Rethinking Bottleneck Structure for Efficient Mobile Network Design", ECCV 2020, arXiv:2007.02269
(section 3.2, table 2); with coordinate attention: Hou et al., arXiv:2103.02907 (figure 3, table 4). Official code:
zhoudaquan/rethinking_bottleneck_design (Clear BSD). There is no official code for the variant with attention: ours
puts it after a block's first depthwise convolution, which gives the parameter count of the paper's reconstruction.
The residual of every block carries all channels (the official identity tensor multiplier of 1).
"""

import math
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from timm.layers import DropPath
from timm.layers.helpers import make_divisible
from timm.models._builder import build_model_with_cfg
from torch import Tensor, nn

from mobilezoo.config import Record
from mobilezoo.layers.attention import create_attention, known_attention
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.staged import Stage, StagedNet, drop_path_rates

MIN_SIZE = 32


class Sandglass(Record):
    """`depth` blocks of one width; the first one strides."""

    depth: int = Field(default=1, gt=0, description="blocks of the stage")
    width: int = Field(gt=0, description="output channels before the width multiplier")
    stride: Literal[1, 2] = 1
    reduction: int = Field(default=6, gt=0, description="input channels over bottleneck channels")
    fixed: bool = Field(default=False, description="the width multiplier never shrinks it: the last stage")
    attention: str = Field(default="none", description="none, se, coord, ...: after the first depthwise convolution")

    @field_validator("attention")
    @classmethod
    def _known_attention(cls, value: str) -> str:
        return known_attention(value)


class Config(ModelConfig):
    """Stem convolution (stride 2), sandglass stages, pooling, classifier."""

    family: Literal["mobilenext"]
    stem: int = Field(default=32, gt=0, description="channels of the first convolution")
    stages: tuple[Sandglass, ...] = Field(min_length=1)
    width_multiplier: float = Field(default=1.0, gt=0, description="factor of every width")
    drop_rate: float = Field(default=0.2, ge=0, lt=1, description="dropout before the classifier, as published")


class ConvNormAct(nn.Sequential):
    """Convolution → BatchNorm → ReLU6 (or nothing)."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__(
            nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_chs),
            nn.ReLU6(inplace=True) if act else nn.Identity(),
        )


class SandglassBlock(nn.Module):
    """[depthwise 3×3 → attention] → 1×1 narrow, linear → 1×1 wide → [depthwise 3×3, linear], with a shortcut.

    Where the width changes, the first depthwise convolution is left out, and the last one too unless it strides;
    blocks of reduction 2 and single blocks of stride 1 (`whole`) keep both and have no shortcut.
    """

    def __init__(
        self, in_chs: int, out_chs: int, stride: int, reduction: int, whole: bool, attention: str, drop_path: float
    ) -> None:
        super().__init__()
        hidden = in_chs // reduction
        if hidden < out_chs / 6:
            hidden = make_divisible(math.ceil(out_chs / 6), 16)
        same = in_chs == out_chs and stride == 1
        first = whole or reduction == 2 or same
        last = first or stride == 2
        self.shortcut = same and not whole and reduction != 2
        self.dw1 = ConvNormAct(in_chs, in_chs, 3, groups=in_chs) if first else nn.Identity()
        self.attention = create_attention(attention, in_chs) if first else nn.Identity()
        self.reduce = ConvNormAct(in_chs, hidden, 1, act=False)
        self.expand = ConvNormAct(hidden, out_chs, 1)
        self.dw2 = ConvNormAct(out_chs, out_chs, 3, stride, groups=out_chs, act=False) if last else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path and self.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dw2(self.expand(self.reduce(self.attention(self.dw1(x)))))
        return x + self.drop_path(y) if self.shortcut else y


class Stem(ConvNormAct):
    """3×3 convolution of stride 2; checks the input's size."""

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, MIN_SIZE)
        out: Tensor = super().forward(x)
        return out


class MobileNeXt(StagedNet):
    """Stages of equal stride are one feature level: strides 4, 8, 16, 32."""

    def __init__(
        self,
        config: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
    ) -> None:
        stem_chs = make_divisible(config.stem * config.width_multiplier, 8)
        rates = drop_path_rates(drop_path_rate, tuple(stage.depth for stage in config.stages))
        levels: list[list[nn.Module]] = []
        widths: list[int] = []
        in_chs = stem_chs
        for stage, stage_rates in zip(config.stages, rates, strict=True):
            out_chs = _width(stage, config.width_multiplier)
            if stage.stride == 2 or not levels:
                levels.append([])
                widths.append(out_chs)
            whole = stage.depth == 1 and stage.stride == 1
            for index, rate in enumerate(stage_rates):
                stride = stage.stride if index == 0 else 1
                block = SandglassBlock(in_chs, out_chs, stride, stage.reduction, whole, stage.attention, rate)
                levels[-1].append(block)
                in_chs = out_chs
            widths[-1] = out_chs
        head = NormHead(in_chs, num_classes, nn.Identity(), global_pool, drop_rate)
        first_stride = 2 * config.stages[0].stride
        super().__init__(
            Stem(in_chans, stem_chs, 3, stride=2),
            [Stage(blocks) for blocks in levels],
            head,
            tuple(widths),
            first_stride,
        )
        self.in_chans = in_chans
        self.apply(_init)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a MobileNeXt of a config.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    kwargs.setdefault("drop_rate", config.drop_rate)
    levels = 1 + sum(stage.stride == 2 for stage in config.stages[1:])
    network: nn.Module = build_model_with_cfg(
        MobileNeXt,
        config.name,
        False,
        pretrained_cfg=config.pretrained_cfg(first_conv="stem.0", classifier="head.fc"),
        feature_cfg={"out_indices": tuple(range(levels)), "feature_cls": "getter"},
        config=config,
        **kwargs,
    )
    return network


def from_official(state_dict: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename official keys (`features.0.0.weight`, `classifier.1.weight`); any other dict is returned unchanged.

    They are in running order as the network's own are, so keys correspond by position.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not next(iter(state_dict), "").startswith("features."):
        return state_dict
    ours = [k for k in model.state_dict() if not k.endswith("num_batches_tracked")]
    theirs = [k for k in state_dict if not k.endswith("num_batches_tracked")]
    if len(ours) != len(theirs):
        return state_dict
    return {new: state_dict[old] for new, old in zip(ours, theirs, strict=True)}


def _width(stage: Sandglass, multiplier: float) -> int:
    if stage.fixed and multiplier < 1:
        return stage.width
    width: int = make_divisible(stage.width * multiplier, 8)
    return width


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
