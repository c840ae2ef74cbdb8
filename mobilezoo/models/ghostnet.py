"""GhostNet V1, V2 and V3: half of the features from convolutions, half from cheap operations on them.

Papers: GhostNet (Han et al., arXiv:1911.11907, table 1), GhostNetV2 (Tang et al., arXiv:2211.12905, section 4: DFC
attention), GhostNetV3 (Liu et al., arXiv:2404.11202: re-parameterisable branches). Official code:
huawei-noah/Efficient-AI-Backbones (Apache-2.0 for V1; no license stated for V2 and V3). timm's class is the same
network with the same keys (V3: `bn` is named `bn1`).
"""

from typing import Any, Literal

import torch
from pydantic import Field
from timm.models._builder import build_model_with_cfg
from timm.models.ghostnet import GhostNet
from torch import nn

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig

ATTENTIVE_MIN_SIZE = 33


class Block(Record):
    """One ghost bottleneck; channel counts are before the width multiplier."""

    kernel: Literal[3, 5, 7] = Field(description="of the depthwise convolution")
    hidden: int = Field(gt=0, description="channels between the two ghost modules")
    width: int = Field(gt=0, description="output channels")
    se_ratio: float = Field(default=0, ge=0, le=1, description="squeeze-and-excitation; 0 is none")
    stride: Literal[1, 2] = 1


class Config(ModelConfig):
    """Stages of ghost bottlenecks; `version` decides their kind."""

    family: Literal["ghostnet"]
    version: Literal["v1", "v2", "v3"]
    width_multiplier: float = Field(default=1.0, gt=0, description="factor of every width")
    stages: tuple[tuple[Block, ...], ...] = Field(min_length=1)
    drop_rate: float = Field(default=0.2, ge=0, lt=1, description="dropout before the classifier, as published")


class AttentiveGhostNet(GhostNet):
    """V2 and V3: their attention halves the last map, which must therefore be 2×2 at least."""

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        check_input_size(x, ATTENTIVE_MIN_SIZE)
        out: torch.Tensor = super().forward_features(x)
        return out


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build timm's GhostNet of a config.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `global_pool`, `features_only`, `out_indices`.

    Raises:
        ConfigError: `drop_path_rate` is given: GhostNet has no stochastic depth.
    """
    if kwargs.pop("drop_path_rate", 0.0):
        raise ConfigError(f"{config.name}: drop_path_rate is not part of GhostNet: leave it out")
    kwargs.setdefault("drop_rate", config.drop_rate)
    rows = [[[b.kernel, b.hidden, b.width, b.se_ratio, b.stride] for b in stage] for stage in config.stages]
    network: nn.Module = build_model_with_cfg(
        GhostNet if config.version == "v1" else AttentiveGhostNet,
        config.name,
        False,
        pretrained_cfg=config.pretrained_cfg(first_conv="conv_stem", classifier="classifier"),
        feature_cfg={"flatten_sequential": True},
        cfgs=rows,
        width=config.width_multiplier,
        version=config.version,
        **kwargs,
    )
    return network


def from_official(state_dict: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename the norms of V3, `bn` in the official file; V1 and V2 are unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: unused.
    """
    renamed = {}
    for key, value in state_dict.items():
        in_branch = ".ghost" in key or ".dw_rpr_" in key
        renamed[key.replace("bn.", "bn1.") if in_branch else key] = value
    return renamed
