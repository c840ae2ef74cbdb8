"""SHViT: single-head attention on part of the channels, strided four times before the first block.

Paper: Yun and Ro, "SHViT", CVPR 2024, arXiv:2401.16456 (section 3, table 1). Official code: ysj9909/SHViT (MIT).
timm's class is the same network; only the official keys of downsampling layers and blocks are named otherwise.
"""

import re
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath
from timm.models._builder import build_model_with_cfg
from timm.models.shvit import BasicBlock, Residual, SHViT
from torch import nn

from mobilezoo.models.base import ModelConfig

Three = tuple[int, int, int]
Type = Literal["s", "i"]
DOWNSAMPLE = {"0.0": "0", "0.1": "1", "1": "2", "2.0": "3", "2.1": "4"}
"""Official position of a downsampling layer in `blocksN` → position in timm's `downsample`."""


class Config(ModelConfig):
    """Three stages, each of blocks with attention (`types` s) or with convolutions only (i)."""

    family: Literal["shvit"]
    widths: Three = Field(description="channels per stage")
    depths: Three = Field(description="blocks per stage")
    partial_widths: Three
    """Channels that attention sees, per stage."""
    qk_widths: Three = Field(default=(16, 16, 16), description="channels of queries and of keys, per stage")
    types: tuple[Type, Type, Type] = Field(
        default=("i", "s", "s"), description="per stage: s, blocks with attention; i, only convolutions"
    )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build timm's SHViT of a config, with stochastic depth for a `drop_path_rate` above 0 (timm's own has none).

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    drop_path_rate = kwargs.pop("drop_path_rate", None) or 0.0
    network: nn.Module = build_model_with_cfg(
        SHViT,
        config.name,
        False,
        pretrained_cfg=config.pretrained_cfg(first_conv="patch_embed.0.c", classifier="head.l"),
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        embed_dim=config.widths,
        partial_dim=config.partial_widths,
        qk_dim=config.qk_widths,
        depth=config.depths,
        types=config.types,
        **kwargs,
    )
    if drop_path_rate:
        _add_drop_path(network, drop_path_rate)
    return network


class DropResidual(Residual):
    """timm's residual whose branch is dropped at random in training; the same keys."""

    def __init__(self, branch: nn.Module, rate: float) -> None:
        super().__init__(branch)
        self.drop_path = DropPath(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(self.m(x))


def _add_drop_path(network: nn.Module, rate: float) -> None:
    """The probability rises linearly from 0 in the first block to `rate` in the last."""
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    for i, block in enumerate(blocks):
        add_drop_path(block, rate * i / max(1, len(blocks) - 1))


def add_drop_path(block: nn.Module, rate: float) -> None:
    """Drop the residual branches of one block at random in training; the state dict keeps its keys.

    Args:
        block: timm's SHViT block, changed in place.
        rate: probability; 0 changes nothing.
    """
    for name, child in list(block.named_children()):
        if rate and isinstance(child, Residual):
            setattr(block, name, DropResidual(child.m, rate))


def from_official(state_dict: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename `blocks2.0.0.m…` → `stages.1.downsample.0.m…`, `blocks2.3.…` → `stages.1.blocks.0.…`.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: unused.
    """
    return {_rename(key): value for key, value in state_dict.items()}


def _rename(key: str) -> str:
    found = re.match(r"blocks([123])\.(\d+)\.(.*)", key)
    if not found:
        return key
    stage, index, rest = int(found[1]) - 1, int(found[2]), found[3]
    if stage == 0:
        return f"stages.0.blocks.{index}.{rest}"
    if index >= 3:
        return f"stages.{stage}.blocks.{index - 3}.{rest}"
    for official, ours in DOWNSAMPLE.items():
        if f"{index}.{rest}".startswith(official + "."):
            return f"stages.{stage}.downsample.{ours}.{f'{index}.{rest}'.removeprefix(official + '.')}"
    return key
