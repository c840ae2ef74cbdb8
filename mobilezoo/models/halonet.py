"""HaloNet: ResNets whose late blocks attend to blocks of the map and a halo around them instead of convolving.

Paper: "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", CVPR 2021, arXiv:2103.12731. The authors
published no code; the variants here, other than our mobile width, are those of timm (byoanet.py, Apache-2.0), whose
files load unchanged.

Structure and blocks are timm's `ByobNet`; the attention alone is ours (see `layers/halo_attention.py`), in a form that
phones run.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn

from mobilezoo.layers.halo_attention import HaloAttention
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.staged import build_network


class Config(ModelConfig):
    """A HaloNet as data."""

    family: Literal["halonet"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    attends: tuple[tuple[int, ...], ...] = Field(description="which blocks of each stage attend, from 0")
    strides: tuple[int, ...] = Field(description="stride of each stage's first block")
    ratios: tuple[float, ...] = Field(description="width inside a stage's blocks over the width outside")
    heads: tuple[int, ...] = Field(description="attention heads per stage")
    block: int = Field(default=8, gt=0, description="side of a block of queries")
    halo: int = Field(default=3, ge=0, description="width of the halo around a block")
    head_dim: int | None = Field(default=None, gt=0, description="channels of a head's queries and keys")
    qk_ratio: float = Field(default=1.0, gt=0, description="width of queries and keys over that of values")
    group_size: int = Field(default=0, ge=0, description="channels per group of 3×3 convolutions, 0 for one group")
    stem: Literal["tiered", "3x3"] = Field(default="tiered", description="three 3×3 convolutions, or one")
    stem_width: int = Field(default=64, gt=0, description="channels of the stem")
    stem_pool: bool = Field(default=True, description="a max-pooling behind the stem")
    last_width: int = Field(default=0, ge=0, description="channels of a 1×1 convolution before the head, 0 for none")
    act: Literal["relu", "silu"] = "relu"
    channel_attention: Literal["", "se", "eca"] = Field(default="", description="in the blocks that convolve")
    inverted: bool = Field(default=False, description="as RegNet-Z: wide inside, no activation behind, no projection")

    _one_per_stage = one_per_stage("depths", "attends", "strides", "ratios", "heads")

    @field_validator("attends")
    @classmethod
    def _are_blocks(cls, value: tuple[tuple[int, ...], ...], info: ValidationInfo) -> tuple[tuple[int, ...], ...]:
        for blocks, depth in zip(value, info.data.get("depths", ()), strict=False):
            if any(not 0 <= index < depth for index in blocks):
                raise ValueError(f"{list(blocks)} are not all blocks of a stage of {depth}, counted from 0")
        return value

    def stage(self, index: int) -> tuple[ByoBlockCfg, ...]:
        """One stage's blocks in timm's form."""
        width, stride, depth = self.widths[index], self.strides[index], self.depths[index]
        kinds = ["self_attn" if i in self.attends[index] else "bottle" for i in range(depth)]
        own = {"self_attn_layer": HaloAttention, "self_attn_kwargs": self._attention(index)}
        group, ratio = self.group_size, self.ratios[index]
        return tuple(
            ByoBlockCfg(type=kind, d=1, c=width, s=stride if i == 0 else 1, gs=group, br=ratio, **own)
            for i, kind in enumerate(kinds)
        )

    def _attention(self, index: int) -> dict[str, Any]:
        own = {"block_size": self.block, "halo_size": self.halo, "num_heads": self.heads[index]}
        return own | {"dim_head": self.head_dim, "qk_ratio": self.qk_ratio}

    def structure(self) -> ByoModelCfg:
        """The whole in timm's form."""
        return ByoModelCfg(
            blocks=tuple(self.stage(i) for i in range(len(self.depths))),
            downsample="" if self.inverted else "conv1x1",
            stem_type=self.stem,
            stem_chs=self.stem_width,
            stem_pool="maxpool" if self.stem_pool else "",
            num_features=self.last_width,
            act_layer=self.act,
            attn_layer=self.channel_attention or None,
            attn_kwargs={"rd_ratio": 0.25} if self.inverted else {},
            block_kwargs={"bottle_in": True, "linear_out": True} if self.inverted else {},
        )


class HaloNet(ByobNet):
    """timm's network of a config; `feature_info` lists the stem and the stages."""

    def __init__(self, cfg: Config, num_classes: int = 1000, in_chans: int = 3, **kwargs: Any) -> None:
        super().__init__(cfg.structure(), num_classes, in_chans, **kwargs)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a HaloNet; see `build_network`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    first = "stem.conv1.conv" if config.stem == "tiered" else "stem.conv"
    return build_network(HaloNet, config, {"flatten_sequential": True}, first_conv=first, **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Unchanged: timm's files have these keys.

    Args:
        state_dict: tensors by timm's names, which are the network's own.
        model: unused.
    """
    return dict(state_dict)
