"""InLine attention on the plans of DeiT and PVT: linear attention that is injective and has a local part.

Paper: "Bridging the Divide: Reconsidering Softmax and Linear Attention", NeurIPS 2024, arXiv:2412.06590 (section 4).
Official code: LeapLabTHU/InLine; its repository states no license.

Where it differs from the official code, and why: sequences are maps of one column and linear layers 1×1 convolutions,
so that phones keep channels innermost; the keys' mean is taken off before the product instead of after it; the local
kernels that are computed per image are nine shifted products. All give the same sums.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from mobilezoo.layers.inline_attention import SIDE, InlineAttention
from mobilezoo.models.renames import as_kernel
from mobilezoo.models.transformer import TransformerConfig, build_transformer, rename_official


class Config(TransformerConfig):
    """A transformer of InLine attention as data."""

    family: Literal["inline"]


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a transformer whose blocks attend in line; see `build_transformer`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """

    def attend(stage: int) -> nn.Module:
        return InlineAttention(config.widths[stage], config.heads[stage], config.class_token)

    return build_transformer(config, attend, **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`inline_deit_*`, `inline_pvt_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    renamed = rename_official(state_dict)
    if renamed is None:
        return dict(state_dict)
    found = {}
    for key, value in renamed.items():
        owner, _, kind = key.partition(".residual.")
        if kind.startswith("0."):
            found[f"{owner}.local.hidden.{kind[2:]}"] = as_kernel(value.squeeze(-1))
        elif kind.startswith("2."):
            taps = value.squeeze(-1).unflatten(0, (-1, SIDE * SIDE)).unbind(1)
            found |= {f"{owner}.local.taps.{i}.{kind[2:]}": as_kernel(tap) for i, tap in enumerate(taps)}
        else:
            found[key] = value
    return found
