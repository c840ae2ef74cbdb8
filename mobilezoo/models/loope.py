"""LOOPE: a vision transformer whose positions are a learned order of its patches.

Paper: "LOOPE: Learnable Optimal Patch Order in Positional Embeddings for Vision Transformers", arXiv:2504.14386
(section 3). From the paper's text, no official weights or code to compare with (see `layers/patch_order.py`). The plan
and the blocks are DeiT's (arXiv:2012.12877), one of those the paper tries it on; the class token has a learned place.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.map_attention import MapAttention
from mobilezoo.layers.patch_order import PatchOrder
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.tokens import Grid, TokenHead, TokenStem, join_token
from mobilezoo.models.staged import build_network, drop_path_rates
from mobilezoo.models.transformer import NORM_EPS, Block, TokenNet, TransformerConfig


class Config(TransformerConfig):
    """A vision transformer with LOOPE as data."""

    family: Literal["loope"]

    @model_validator(mode="after")
    def _has_a_token_and_pairs(self) -> Self:
        if not self.class_token:
            raise ValueError("class_token: this plan has one")
        if self.widths[0] % 2:
            raise ValueError(f"widths: {self.widths[0]} channels are no pairs of sine and cosine")
        return self


class Stem(TokenStem):
    """Patches, positions by their order, class token; what does not fill a patch is left out."""

    def __init__(self, in_chs: int, dim: int, patch: int, grid: Grid) -> None:
        super().__init__(in_chs, dim, patch, grid)
        del self.position
        self.order = PatchOrder(in_chs, dim, patch, grid)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.patch)
        patches = self.conv(x) + self.order(x)
        token = (self.class_token + self.class_position).expand(patches.shape[0], -1, -1, -1)
        return join_token(token, patches)


class Attention(MapAttention):
    """Plain attention over a sequence."""

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """One attention; the output has the shape of `x`.

        Args:
            x: sequence [b, dim, n, 1].
            grid: ignored: positions are in the sequence.
        """
        return super().forward(x)


class Loope(TokenNet):
    """DeiT with LOOPE for classification; `feature_info` lists the blocks, all at the patches' stride."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        dim, heads, (rates,) = cfg.widths[0], cfg.heads[0], drop_path_rates(drop_path_rate, cfg.depths)
        blocks = (Block(Attention(dim, heads, qkv_bias=True), dim, cfg.mlp_ratios[0], rate) for rate in rates)
        super().__init__(
            Stem(in_chans, dim, cfg.patch, cfg.grid(0)),
            blocks,
            TokenHead(dim, num_classes, LayerNorm2d(dim, eps=NORM_EPS), global_pool, drop_rate, last=False),
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a DeiT with LOOPE as timm builds its models.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    features = {"out_indices": 3, "feature_cls": "getter"}
    return build_network(Loope, config, features, first_conv="stem.conv", **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors unchanged: there are no official files.

    Args:
        state_dict: tensors by the network's own names.
        model: network that the weights are for.
    """
    return dict(state_dict)
