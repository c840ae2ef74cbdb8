"""The two plans of plain vision transformers that families of attention are published on.

DeiT (arXiv:2012.12877): patches and a class token, one width throughout. PVT (arXiv:2102.12122): four stages of halving
maps, no class token, mean over the last map. Linear layers are 1×1 convolutions.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from timm.layers import DropPath, LayerNorm2d
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mobilezoo.layers.head import NormHead
from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.tokens import Grid, TokenHead, TokenStem, learned, patches_of, resized
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.headed import HeadedNet
from mobilezoo.models.renames import Renames, as_kernel
from mobilezoo.models.staged import Stage, StagedNet, build_network, build_staged, drop_path_rates

NORM_EPS = 1e-6


class TransformerConfig(ModelConfig):
    """A transformer as data: with a class token it has one stage, as DeiT, without one it is a pyramid, as PVT."""

    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    heads: tuple[int, ...] = Field(description="attention heads per stage")
    mlp_ratios: tuple[float, ...] = Field(description="hidden width of MLPs over the block's, per stage")
    patch: int = Field(gt=0, description="side in pixels of the stem's patches")
    class_token: bool = Field(description="a token that gathers what the classifier reads")

    _one_per_stage = one_per_stage("depths", "heads", "mlp_ratios")

    @model_validator(mode="after")
    def _one_stage_with_a_token(self) -> Self:
        if self.class_token and len(self.widths) > 1:
            raise ValueError("class_token: networks of several stages have none")
        return self

    def grid(self, stage: int) -> Grid:
        """Rows and columns of a stage's map at the network's resolution."""
        step = self.patch << stage
        return self.resolution[0] // step, self.resolution[1] // step


Attend = Callable[[int], nn.Module]
"""Stage → an attention module of its blocks; called with the input and, for sequences, their grid."""


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, attn: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp: nn.Module = MapMlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """One block; the output has the shape of `x`.

        Args:
            x: map [b, dim, H, W] or sequence [b, dim, n, 1].
            grid: rows and columns of the patches of a sequence; None for a map.
        """
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenNet(HeadedNet):
    """A class token and patches through `blocks`, each called with the sequence [b, c, n, 1] and its grid."""

    levels = "blocks"

    def __init__(self, stem: TokenStem, blocks: Iterable[nn.Module], head: TokenHead) -> None:
        super().__init__()
        width = stem.conv.out_channels
        self.in_chans = stem.conv.in_channels
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.num_features = self.head_hidden_size = width
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": width, "reduction": stem.patch, "module": f"blocks.{i}"} for i in range(len(self.blocks))
        ]
        self.num_classes = head.fc.out_features if isinstance(head.fc, nn.Linear) else 0

    @staticmethod
    def group_matcher(coarse: bool = False) -> dict[str, Any]:
        """timm's parameter groups for layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^head\.norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """Class token and positions; timm exempts biases and norms by itself."""
        return {f"stem.{name}" for name in ("position", "class_token", "class_position")}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def _run(self, block: nn.Module, x: Tensor, grid: Grid) -> Tensor:
        if self.grad_checkpointing and self.training:
            out: Tensor = checkpoint(block, x, grid, use_reentrant=False)
            return out
        return block(x, grid)

    def forward_features(self, x: Tensor) -> Tensor:
        """[b, in_chans, H, W] → [b, num_features, n, 1], before the head's norm."""
        grid = self.stem.grid_of(x)
        x = self.stem(x)
        for block in self.blocks:
            x = self._run(block, x, grid)
        return x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        assert output_fmt == "NCHW", "output is NCHW only"
        take, last = feature_take_indices(len(self.blocks), indices)
        kept, grid = [], self.stem.grid_of(x)
        x = self.stem(x)
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            x = self._run(block, x, grid)
            if i in take:
                kept.append(patches_of(self.head.norm(x) if norm else x, grid, self.stem.last))
        return kept if intermediates_only else (x, kept)


class Patches(nn.Module):
    """Patches cut, projected and normalized, with learned positions; what does not fill a patch is left out."""

    def __init__(self, in_chs: int, out_chs: int, patch: int, grid: Grid, min_size: int = 1) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv = nn.Conv2d(in_chs, out_chs, patch, patch)
        self.norm = LayerNorm2d(out_chs, eps=1e-5)
        self.position = learned(1, out_chs, *grid)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        x = self.norm(self.conv(x))
        return x + resized(self.position, (x.shape[2], x.shape[3]))


class Deit(TokenNet):
    """DeiT's plan for classification; `feature_info` lists the blocks, all at the patches' stride."""

    def __init__(
        self,
        cfg: TransformerConfig,
        attend: Attend,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        dim, (rates,) = cfg.widths[0], drop_path_rates(drop_path_rate, cfg.depths)
        super().__init__(
            TokenStem(in_chans, dim, cfg.patch, cfg.grid(0)),
            [Block(attend(0), dim, cfg.mlp_ratios[0], rate) for rate in rates],
            TokenHead(dim, num_classes, LayerNorm2d(dim, eps=NORM_EPS), global_pool, drop_rate, last=False),
        )


class Pvt(StagedNet):
    """PVT's plan for classification; `feature_info` lists the stages' outputs, the first at the patches' stride."""

    def __init__(
        self,
        cfg: TransformerConfig,
        attend: Attend,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages = []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            dim = cfg.widths[i]
            down = Patches(cfg.widths[i - 1], dim, 2, cfg.grid(i)) if i > 0 else None
            stages.append(Stage([Block(attend(i), dim, cfg.mlp_ratios[i], rate) for rate in rates], down))
        smallest = cfg.patch << (len(cfg.depths) - 1)
        super().__init__(
            Patches(in_chans, cfg.widths[0], cfg.patch, cfg.grid(0), min_size=smallest),
            stages,
            NormHead(cfg.widths[-1], num_classes, nn.Identity(), global_pool, drop_rate),
            widths=cfg.widths,
            stride=cfg.patch,
        )


def build_transformer(config: TransformerConfig, attend: Attend, **kwargs: Any) -> nn.Module:
    """Build a Deit (with a class token) or a Pvt (without).

    Args:
        config: the architecture.
        attend: maker of the attention of a stage's blocks.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    if config.class_token:
        features = {"out_indices": 3, "feature_cls": "getter"}
        return build_network(Deit, config, features, first_conv="stem.conv", attend=attend, **kwargs)
    return build_staged(Pvt, config, len(config.depths), first_conv="stem.conv", attend=attend, **kwargs)


_RENAMES = Renames(
    (r"^patch_embed1?\.proj\.", "stem.conv."),
    (r"^patch_embed1\.norm\.", "stem.norm."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def rename_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """An official state dict of either plan by our names, q, k and v joined; None for any other.

    What is left to do is what the family's attention has of its own.
    """
    if "patch_embed.proj.weight" not in state_dict and "patch_embed1.proj.weight" not in state_dict:
        return None
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key == "cls_token":
            renamed["stem.class_token"] = value.reshape(1, -1, 1, 1)
        elif key == "pos_embed":
            renamed |= token_positions(value)
        elif match := re.fullmatch(r"pos_embed(\d)", key):
            stage = int(match[1]) - 1
            renamed["stem.position" if stage == 0 else f"stages.{stage}.downsample.position"] = as_map(value)
        elif ".attn.kv." in key:
            continue
        elif ".attn.q." in key and (other := key.replace(".q.", ".kv.")) in state_dict:
            joined = torch.cat([value, state_dict[other]])
            renamed[_rename(key).replace(".q.", ".qkv.conv.")] = as_kernel(joined)
        else:
            new = _rename(key).replace(".attn.qkv.", ".attn.qkv.conv.")
            renamed[new] = as_kernel(value, new)
    return renamed


def token_positions(value: Tensor, last: bool = False) -> dict[str, Tensor]:
    """Cut official positions into those of our class token and patches.

    Args:
        value: positions [1, n, c], class token included.
        last: the class token stands last instead of first.

    Returns:
        Our names → tensors.
    """
    count = value.shape[1] - 1
    token, patches = value.split([count, 1], dim=1)[::-1] if last else value.split([1, count], dim=1)
    return {"stem.class_position": token.reshape(1, -1, 1, 1), "stem.position": as_map(patches)}


def as_map(positions: Tensor) -> Tensor:
    """[1, side · side, c] → [1, c, side, side]; what is no square stays as it is, and fits no network."""
    side = round(positions.shape[1] ** 0.5)
    if positions.shape[1] != side * side:
        return positions
    return positions.transpose(1, 2).reshape(1, -1, side, side)


def _rename(key: str) -> str:
    if match := re.match(r"(patch_embed|block)([2-9]|1(?=\.\d))\.(.*)", key):
        kind, stage, rest = match[1], int(match[2]) - 1, match[3]
        if kind == "block":
            return f"stages.{stage}.blocks.{rest}"
        return f"stages.{stage}.downsample.{rest.replace('proj.', 'conv.')}"
    return _RENAMES(key)
