"""FastViT and FastViTHD: stages of depthwise mixing with training-time branches, the last ones with attention.

Papers: "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", ICCV 2023, arXiv:2303.14189;
"MobileCLIP", CVPR 2024, arXiv:2311.17049 (mci0 to mci2); "FastVLM", CVPR 2025, arXiv:2412.13303, whose FastViTHD has
the architecture of mci3. Official code: apple/ml-fastvit, apple/ml-mobileclip, apple/ml-fastvlm, Apple's own licenses.

Structure and blocks are timm's `FastVit` (Apache-2.0), whose files load unchanged; official ones, with their branches,
are renamed as timm does. `fuse()` makes one convolution of every group of branches.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field
from timm.layers import LayerNorm2d
from timm.models.fastvit import FastVit, RepConditionalPosEnc, checkpoint_filter_fn
from torch import Tensor, nn

from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.staged import build_network

OFFICIAL = ("patch_embed.0.rbr_conv.0.conv.weight", "image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight")
"""A key of official files: of the classifiers, and of MobileCLIP."""
NORM_EPS = 1e-5


class Config(ModelConfig):
    """A FastViT as data."""

    family: Literal["fastvit"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    ratio: float = Field(default=4.0, gt=0, description="hidden width of MLPs over the block's")
    attention_from: int = Field(ge=0, description="first stage that attends, from 0; as many as stages for none")
    se: tuple[int, ...] = Field(default=(), description="stages whose downsampling has squeeze-and-excitation, from 0")
    act_after_large: bool = Field(default=False, description="GELU behind the large kernels of downsampling")
    stem_scale: bool = Field(default=True, description="1×1 branches in the stem while training")
    norm: Literal["batch", "layer"] = Field(default="batch", description="in front of attention")

    _one_per_stage = one_per_stage("depths")

    def arguments(self) -> dict[str, Any]:
        """What timm's class is built from."""
        stages = range(len(self.widths))
        position = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
        return {
            "layers": self.depths,
            "embed_dims": self.widths,
            "mlp_ratios": (self.ratio,) * len(self.widths),
            "token_mixers": tuple("attention" if i >= self.attention_from else "repmixer" for i in stages),
            "pos_embs": tuple(position if i >= self.attention_from else None for i in stages),
            "downsamples": tuple(i > 0 for i in stages),
            "se_downsamples": tuple(i in self.se for i in stages),
            "lkc_use_act": self.act_after_large,
            "stem_use_scale_branch": self.stem_scale,
            "norm_layer": nn.BatchNorm2d if self.norm == "batch" else partial(LayerNorm2d, eps=NORM_EPS),
        }


class FastViT(FastVit):
    """timm's network of a config; `feature_info` lists the stages' outputs from stride 4 on."""

    def __init__(self, cfg: Config, num_classes: int = 1000, in_chans: int = 3, **kwargs: Any) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, **cfg.arguments(), **kwargs)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a FastViT; see `build_network`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    features = {"out_indices": tuple(range(len(config.widths))), "flatten_sequential": True}
    return build_network(FastViT, config, features, first_conv="stem.0.conv_kxk.0.conv", **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official state dict, of training form; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key in state_dict for key in OFFICIAL):
        return dict(state_dict)
    return dict(checkpoint_filter_fn(dict(state_dict), model))
