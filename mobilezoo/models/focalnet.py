"""FocalNet: a query per position modulated by contexts of growing size, gathered with gates; no attention.

Paper: "Focal Modulation Networks", NeurIPS 2022, arXiv:2203.11926 (section 3.2, equations 4 to 7). Official code:
microsoft/FocalNet, MIT. Official files and timm's of the same networks load.

Where it differs from the official code, and why: maps stay [b, c, h, w], and the joint projection is cut into query,
context and gates by its weights, so that phones need neither transposes nor slices of the map.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.head import NormHead
from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames, as_kernel
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

MLP_RATIO = 4
WIDER = 2
"""By how many pixels each level's kernel is larger than the one before."""


class Config(ModelConfig):
    """A FocalNet as data."""

    family: Literal["focalnet"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    levels: tuple[int, ...] = Field(description="local context sizes per stage, beside the global one")
    window: int = Field(default=3, gt=0, description="odd side in pixels of the first level's kernel")
    patch: int = Field(default=4, gt=0, description="side in pixels of the stem's patches")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of every LayerNorm")

    _one_per_stage = one_per_stage("depths", "levels")


class Patches(nn.Module):
    """Patches cut and projected, then LayerNorm; what does not fill a patch is left out."""

    def __init__(self, in_chs: int, out_chs: int, patch: int, norm_eps: float, min_size: int = 1) -> None:
        super().__init__()
        self.min_size = min_size
        self.conv = nn.Conv2d(in_chs, out_chs, patch, patch)
        self.norm = LayerNorm2d(out_chs, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.norm(self.conv(x))


class FocalModulation(nn.Module):
    """project(query · h(Σ gate · context)), contexts of depthwise kernels one after the other and of the whole map.

    Input and output [b, dim, H, W] (equation 5 to 7).
    """

    def __init__(self, dim: int, levels: int, window: int = 3) -> None:
        super().__init__()
        self.query = nn.Conv2d(dim, dim, 1)
        self.context = nn.Conv2d(dim, dim, 1)
        self.gates = nn.Conv2d(dim, levels + 1, 1)
        kernels = [window + WIDER * level for level in range(levels)]
        self.focal = nn.ModuleList(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False) for k in kernels)
        self.act = nn.GELU()
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.query(x), self.context(x), self.gates(x)
        gathered = None
        for level, conv in enumerate(self.focal):
            context = self.act(conv(context))
            part = context * gates.narrow(1, level, 1)
            gathered = part if gathered is None else gathered + part
        whole = self.act(context.mean((2, 3), keepdim=True)) * gates.narrow(1, len(self.focal), 1)
        return self.proj(query * self.h(whole if gathered is None else gathered + whole))


class Block(nn.Module):
    """Pre-norm modulation and MLP."""

    def __init__(self, dim: int, levels: int, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=config.norm_eps)
        self.mod = FocalModulation(dim, levels, config.window)
        self.norm2 = LayerNorm2d(dim, eps=config.norm_eps)
        self.mlp = MapMlp(dim, MLP_RATIO * dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mod(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FocalNet(StagedNet):
    """FocalNet for classification; `feature_info` lists the stages' outputs, the first at the stem's stride."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages, eps = [], cfg.norm_eps
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            down = Patches(cfg.widths[i - 1], cfg.widths[i], 2, eps) if i > 0 else None
            stages.append(Stage([Block(cfg.widths[i], cfg.levels[i], cfg, rate) for rate in rates], down))
        width, smallest = cfg.widths[-1], cfg.patch << (len(cfg.depths) - 1)
        super().__init__(
            Patches(in_chans, cfg.widths[0], cfg.patch, eps, min_size=smallest),
            stages,
            NormHead(width, num_classes, LayerNorm2d(width, eps=eps), global_pool, drop_rate),
            widths=cfg.widths,
            stride=cfg.patch,
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a FocalNet; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(FocalNet, config, len(config.depths), first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^(?:patch_embed|stem)\.proj\.", "stem.conv."),
    (r"^patch_embed\.norm\.", "stem.norm."),
    (r"^layers\.", "stages."),
    (r"\.downsample\.proj\.", ".downsample.conv."),
    (r"\.modulation\.focal_layers\.(\d+)\.0\.", r".mod.focal.\1."),
    (r"\.modulation\.", ".mod."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official or timm's (`focalnet_*`) state dict and cut its joint projections; any other is unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    official = "patch_embed.proj.weight" in state_dict
    if not official and "stem.proj.weight" not in state_dict:
        return dict(state_dict)
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        new = _rename(key, official)
        value = as_kernel(value, new)
        if ".mod.f." in new:
            dim = state_dict[key.rpartition(".f.")[0] + ".proj.weight"].shape[0]
            parts = value.split([dim, dim, value.shape[0] - 2 * dim])
            names = ("query", "context", "gates")
            renamed.update({new.replace(".f.", f".{name}."): part for name, part in zip(names, parts, strict=True)})
        else:
            renamed[new] = value
    return renamed


def _rename(key: str, official: bool) -> str:
    """Our key; officially a stage ends with its downsampling layer, in timm it begins with it."""
    if official and (match := re.match(r"layers\.(\d+)\.downsample\.(.*)", key)):
        key = f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
    return _RENAMES(key)
