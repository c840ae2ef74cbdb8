"""LightNet for images: linear attention that needs one scan for both dimensions, on the plan of DeiT.

Paper: "You Only Scan Once: Efficient Multi-dimension Sequential Modeling with LightNet", arXiv:2405.21022. From the
paper's text, no official weights or code to compare with; the block's parts are those that the authors' one-dimensional
layer has in flash-linear-attention (MIT), its two-dimensional form is derived (see `layers/light_attention.py`). The
plan, the MLPs and the learned positions are DeiT's.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from mobilezoo.layers.light_attention import LightAttention
from mobilezoo.models.transformer import TransformerConfig, build_transformer


class Config(TransformerConfig):
    """A LightNet for images as data."""

    family: Literal["lightnet"]

    @model_validator(mode="after")
    def _heads_turn_in_pairs(self) -> Self:
        for width, heads in zip(self.widths, self.heads, strict=True):
            if heads < 1 or width % (4 * heads):
                raise ValueError(f"heads: {heads} do not cut {width} channels into multiples of 4")
        return self


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a LightNet; see `build_transformer`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """

    def attend(stage: int) -> nn.Module:
        return LightAttention(config.widths[stage], config.heads[stage], config.class_token)

    return build_transformer(config, attend, **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors unchanged: there are no official files.

    Args:
        state_dict: tensors by the network's own names.
        model: network that the weights are for.
    """
    return dict(state_dict)
