"""Networks of inverted residual blocks: MobileNetV2, MnasNet, and whatever a search puts together.

Papers: MobileNetV2 (Sandler et al., arXiv:1801.04381, section 3), MnasNet (Tan et al., arXiv:1807.11626, figure 7),
coordinate attention (Hou et al., arXiv:2103.02907, figure 3b: after the depthwise convolution).
Official code: houqb/CoordAttention (MIT), tensorflow/tpu models/official/mnasnet (Apache-2.0).
Built from timm's EfficientNet; what is added is attention per stage, named in the config, and whole stages of other
families' blocks (`mixers.py`). MnasNet as published needs TensorFlow's padding and a norm epsilon of 1e-3, which its
YAMLs state.
"""

import math
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from timm.layers import Conv2dSame, create_conv2d, get_norm_act_layer
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import _create_effnet
from torch import nn

from mobilezoo.config import Record
from mobilezoo.errors import CheckpointError
from mobilezoo.layers.attention import create_attention, known_attention
from mobilezoo.models import mnasnet_official
from mobilezoo.models.attention_parts import MemoryMixer, Residual
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.mixers import MIXERS, create_mixers
from mobilezoo.models.notation import LEAST_WIDTHS, SE_RATIO, Block, stage_string

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hard_swish": nn.Hardswish, "gelu": nn.GELU}


class Stage(Record):
    """`depth` equal blocks; the first one strides and changes the width."""

    block: Block = Field(
        default="ir",
        description="ds: depthwise + 1×1; ir: inverted residual; er: fused; cn: plain convolution; or a family whose "
        "blocks follow one ir block (3×3, expansion 4) that strides",
    )
    depth: int = Field(default=1, gt=0, description="number of blocks; of a family's without the one that strides")
    kernel: Literal[1, 3, 5, 7, 9] = 3
    stride: Literal[1, 2] = 1
    expansion: float = Field(default=1, gt=0, description="hidden channels over input channels; ir and er")
    width: int = Field(gt=0, description="output channels before the width multiplier")
    attention: str = Field(
        default="none", description="none, se, coord, eca, ela_b, ulsam_g4, gaam, halo, na_k7, agent, ..."
    )
    attention_after: Literal["depthwise", "projection"] = Field(
        default="depthwise", description="where attention stands in the block; projection: before the residual is added"
    )
    se_ratio: float = Field(
        default=SE_RATIO, gt=0, le=1, description="se: hidden channels over the block's input channels"
    )
    skip: bool = Field(default=True, description="residual where shapes allow one")

    @field_validator("attention")
    @classmethod
    def _known_attention(cls, value: str) -> str:
        return known_attention(value)

    @model_validator(mode="after")
    def _squeeze_and_excitation_is_timms(self) -> Self:
        if self.attention == "se" and self.attention_after == "projection":
            raise ValueError("attention_after: depthwise for se, which timm builds there")
        return self

    @model_validator(mode="after")
    def _mixers_choose_nothing(self) -> Self:
        if self.block in MIXERS and (self.kernel, self.expansion, self.attention, self.skip) != (3, 1, "none", True):
            raise ValueError(
                f"only depth, stride and width for block {self.block!r}, which has its own everything else"
            )
        if self.block in MIXERS and self.width % 8:
            raise ValueError(f"a width that is a multiple of 8 for block {self.block!r}, got {self.width}")
        if self.width < LEAST_WIDTHS.get(self.block, 0):
            raise ValueError(f"a width from {LEAST_WIDTHS[self.block]} for block {self.block!r}, got {self.width}")
        return self

    @property
    def convolutions(self) -> "Stage":
        """The part of the stage that timm builds: all of it, or the block in front of a family's blocks."""
        if self.block not in MIXERS:
            return self
        return Stage(block="ir", kernel=3, stride=self.stride, expansion=4, width=self.width)


class Config(ModelConfig):
    """Stem convolution (stride 2), stages, 1×1 head convolution, pooling, classifier."""

    family: Literal["mbconv"]
    stem: int = Field(default=32, gt=0, description="channels of the stem before the width multiplier")
    stages: tuple[Stage, ...] = Field(min_length=1)
    head: int = Field(default=1280, gt=0, description="channels of the last 1×1 convolution")
    head_scales: bool = Field(default=False, description="multiply the head too where width_multiplier exceeds 1")
    width_multiplier: float = Field(default=1.0, gt=0, description="on stem and stages, then multiples of 8")
    activation: Literal["relu", "relu6", "silu", "hard_swish", "gelu"] = "relu6"
    padding: Literal["symmetric", "tensorflow"] = "symmetric"
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every BatchNorm")
    norm_momentum: float = Field(default=0.1, gt=0, le=1, description="PyTorch's: weight of the newest batch")
    drop_rate: float = Field(default=0.0, ge=0, lt=1, description="dropout before the classifier, as published")


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a timm EfficientNet (or EfficientNetFeatures with `features_only`) of a config.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    multiplier = config.width_multiplier
    head_multiplier = max(1.0, multiplier) if config.head_scales else 1.0
    kwargs.setdefault("drop_rate", config.drop_rate)
    network: nn.Module = _create_effnet(
        config.name,
        pretrained_cfg=config.pretrained_cfg(first_conv="conv_stem", classifier="classifier"),
        block_args=decode_arch_def([[_text(stage.convolutions)] for stage in config.stages]),
        stem_size=config.stem,
        num_features=round_channels(config.head, head_multiplier if head_multiplier != 1 else 0.0),
        round_chs_fn=partial(round_channels, multiplier=multiplier if multiplier != 1 else 0.0),  # 0: as written
        act_layer=ACTIVATIONS[config.activation],
        norm_layer=partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=config.norm_momentum),
        pad_type="same" if config.padding == "tensorflow" else "",
        **kwargs,
    )
    side = -(-min(config.resolution) // 2)
    for stage, blocks in zip(config.stages, network.get_submodule("blocks").children(), strict=True):
        side = -(-side // stage.stride)
        for block in blocks.children():
            _exact_hidden(block, stage.convolutions, config)
            _add_attention(block, stage)
        if stage.block in MIXERS:
            _add_mixers(blocks, stage, side)
    return network


def arch_strings(config: Config) -> tuple[str, ...] | None:
    """timm's architecture strings of the whole network, or None where a stage has something that timm cannot name."""
    if any(stage.attention not in ("none", "se") or stage.block in MIXERS for stage in config.stages):
        return None
    return tuple(map(_text, config.stages))


def _text(stage: Stage) -> str:
    return stage_string(stage, stage.se_ratio)


def parse_stage(text: str) -> Stage:
    """One stage from timm's notation, for example `ir_r2_k3_s2_e6_c24_se0.25`. Raises ConfigError."""
    block, *options = text.split("_")
    names = {"r": ("depth", int), "k": ("kernel", int), "s": ("stride", int), "e": ("expansion", float)}
    names |= {"c": ("width", int), "se": ("se_ratio", float)}
    data: dict[str, Any] = {"block": block, "skip": "noskip" not in options and (block != "cn" or "skip" in options)}
    for option in options:
        letters = option.rstrip("0123456789.")
        if letters in names:
            key, convert = names[letters]
            data[key] = convert(option[len(letters) :])
    if "se_ratio" in data:
        data["attention"] = "se"
    return Stage.parse(data, text)


def from_official(state_dict: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename the keys of MobileNetV2+CA (`features.0.0.weight`), torchvision's MnasNet (`layers.0.weight`) and MnasNet.

    The first two register layers in the order they run, as timm does, so keys correspond by position; shapes are
    compared when the result is loaded. MnasNet's own are variables of TensorFlow (see `mnasnet_official`).

    Args:
        state_dict: tensors by official, torchvision's or the network's own names.
        model: network that the weights are for.

    Raises:
        CheckpointError: a torchvision MnasNet for a network with TensorFlow's padding.
    """
    if mnasnet_official.is_mnasnet(state_dict):
        return mnasnet_official.rename(state_dict, model)
    first = next(iter(state_dict), "")
    if not first.startswith(("features.", "layers.")):
        return state_dict
    if first.startswith("layers.") and isinstance(model.get_submodule("conv_stem"), Conv2dSame):
        raise CheckpointError(
            "a torchvision MnasNet, whose padding and norms differ from the published network's: use mnasnet_tv_100 "
            "(or _050, _075, _130)"
        )
    ours = [k for k in model.state_dict() if not k.endswith("num_batches_tracked")]
    theirs = [k for k in state_dict if not k.endswith("num_batches_tracked")]
    if len(ours) != len(theirs):
        return state_dict
    return {new: state_dict[old] for new, old in zip(ours, theirs, strict=True)}


def _exact_hidden(block: nn.Module, stage: Stage, config: Config) -> None:
    """Give an inverted residual exactly input × expansion hidden channels, which timm rounds to multiples of 8."""
    if not isinstance(block, InvertedResidual):
        return
    in_chs, kernel = block.conv_pw.in_channels, stage.kernel
    hidden = int(in_chs * stage.expansion)
    if hidden == block.conv_pw.out_channels:
        return
    padding = "same" if config.padding == "tensorflow" else ""
    norm = get_norm_act_layer(partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=config.norm_momentum))
    act = ACTIVATIONS[config.activation]
    stride = block.conv_dw.stride[0]
    block.conv_pw = create_conv2d(in_chs, hidden, 1, padding=padding)
    block.bn1 = norm(hidden, act_layer=act, inplace=True)
    block.conv_dw = create_conv2d(hidden, hidden, kernel, stride=stride, padding=padding, depthwise=True)
    block.bn2 = norm(hidden, act_layer=act, inplace=True)
    block.conv_pwl = create_conv2d(hidden, block.conv_pwl.out_channels, 1, padding=padding)
    if stage.attention == "se":
        block.se = SqueezeExcite(hidden, rd_channels=round(in_chs * stage.se_ratio), act_layer=act)
    _init(block)


def _add_attention(block: nn.Module, stage: Stage) -> None:
    """Put an attention module of the zoo where timm puts squeeze-and-excitation, or after the block's last norm."""
    if stage.attention in ("none", "se"):
        return
    if stage.attention_after == "projection":
        last = next(name for name in ("bn3", "bn2", "bn1") if hasattr(block, name))
        norm = block.get_submodule(last)
        attention = create_attention(stage.attention, norm.num_features)  # type: ignore[arg-type]
        setattr(block, last, nn.Sequential(norm, attention))
        _init_attention(attention)
        return
    depthwise = getattr(block, "conv_dw", None) or getattr(block, "conv_exp", None)
    if isinstance(depthwise, nn.Conv2d):
        block.se = create_attention(stage.attention, depthwise.out_channels)
        _init_attention(block.se)


def _add_mixers(blocks: nn.Module, stage: Stage, side: int) -> None:
    """A family's blocks after the one that strides, dropped in training as often as that one."""
    (entry,) = blocks.children()
    rate = float(getattr(entry.drop_path, "drop_prob", 0.0))
    width = getattr(entry, "conv_pwl").out_channels  # noqa: B009  after the width multiplier
    for number, mixer in enumerate(create_mixers(stage.block, width, stage.depth, side, rate), start=1):
        blocks.add_module(str(number), mixer)


def _init_attention(module: nn.Module) -> None:
    """As the rest of the network, but for token mixers, which begin as in their own networks."""
    if not isinstance(module, Residual | MemoryMixer):
        _init(module)


def _init(module: nn.Module) -> None:
    """timm's EfficientNet initialisation, for convolutions added after it ran."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
