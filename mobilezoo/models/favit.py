"""FaViT: attention factorised into parts of growing reach, each as cheap as a window's.

Paper: "Factorization Vision Transformer: Modeling Long Range Dependency with Local Window Cost", arXiv:2312.08614
(section 3). Official code: q2479036243/FaViT; its repository states no license.

Where it differs from the official code, and why: maps stay [b, c, h, w] with linear layers as 1×1 convolutions; queries
are cut by the weights of their projection; tokens are slices of the map instead of an unfolded copy. The official mean
over windows averages neighbouring channels; `window_mean: windows` is the mean that the paper describes.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.factorized_attention import FactorizedAttention
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames, as_kernel, pvt_stage
from mobilezoo.models.staged import Pyramid, Stage, build_staged

STEM_STRIDE = 4
EMBED_EPS, NORM_EPS = 1e-5, 1e-6


class Config(ModelConfig):
    """A FaViT as data."""

    family: Literal["favit"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage, multiples of 16")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    heads: tuple[int, ...] = Field(description="heads of the window parts per stage")
    mlp_ratios: tuple[float, ...] = Field(description="hidden width of MLPs over the block's, per stage")
    reductions: tuple[int, ...] = Field(description="stride of the pooled part, and step of the far windows, per stage")
    window_mean: Literal["official", "windows"] = Field(
        default="official", description="official: as the published weights need it; windows: as the paper says"
    )

    _one_per_stage = one_per_stage("depths", "heads", "mlp_ratios", "reductions")

    def min_size(self) -> int:
        """Least side in pixels: every stage's pooled part needs one token."""
        return max((r - 1) * (STEM_STRIDE << stage) + 1 for stage, r in enumerate(self.reductions))


class Embed(nn.Module):
    """LayerNorm of the stage before (or none) → strided convolution → LayerNorm."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int, stride: int, before: nn.Module | None = None, min_size: int = 1
    ) -> None:
        super().__init__()
        self.min_size = min_size
        self.before = before or nn.Identity()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2)
        self.norm = LayerNorm2d(out_chs, eps=EMBED_EPS)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.min_size)
        return self.norm(self.conv(self.before(x)))


def embed_between(widths: tuple[int, ...], stage: int) -> Embed | None:
    """Downsampling in front of a stage, which halves the map; None in front of the first.

    Args:
        widths: channels per stage.
        stage: index of the stage, from 0.
    """
    if stage == 0:
        return None
    before = widths[stage - 1]
    return Embed(before, widths[stage], 3, 2, LayerNorm2d(before, eps=NORM_EPS))


class ConvMlp(nn.Module):
    """1×1 → depthwise 3×3 → GELU → 1×1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dw(self.fc1(x))))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, stage: int, config: Config, drop_path: float) -> None:
        super().__init__()
        dim = config.widths[stage]
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.attn = FactorizedAttention(dim, config.heads[stage], config.reductions[stage], config.window_mean)
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp = ConvMlp(dim, int(dim * config.mlp_ratios[stage]))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Favit(Pyramid):
    """FaViT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    @staticmethod
    def make_stem(cfg: Config, in_chans: int) -> nn.Module:
        return Embed(in_chans, cfg.widths[0], 7, STEM_STRIDE, min_size=cfg.min_size())

    @staticmethod
    def make_stage(cfg: Config, stage: int, rates: list[float]) -> Stage:
        down = embed_between(cfg.widths, stage)
        return Stage([Block(stage, cfg, rate) for rate in rates], down)

    @staticmethod
    def make_norm(cfg: Config) -> nn.Module:
        return LayerNorm2d(cfg.widths[-1], eps=NORM_EPS)


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Favit; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Favit, config, len(config.depths), first_conv="stem.conv", **kwargs)


_RENAMES = Renames(
    (r"^patch_embed1\.proj\.", "stem.conv."),
    (r"^patch_embed1\.norm\.", "stem.norm."),
    (r"\.attn\.sr\.", ".attn.pooled.pool."),
    (r"\.attn\.norm\.", ".attn.pooled.norm."),
    (r"\.attn\.local_conv_g\.", ".attn.pooled.local."),
    (r"\.attn\.kv_l\.depth_conv\.", ".attn.dw."),
    (r"\.attn\.kv_l\.point_conv\.", ".attn.pw."),
    (r"\.attn\.fcs\.(\d)\.", r".attn.windows.\1.mix."),
    (r"\.attn\.local_convs\.(\d)\.", r".attn.windows.\1.local."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dw."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`favit_*`) state dict and cut its joint projections; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if "block1.0.attn.kv_g.weight" not in state_dict:
        return dict(state_dict)
    attentions = {name: module for name, module in model.named_modules() if isinstance(module, FactorizedAttention)}
    stages = len(list(model.get_submodule("stages").children()))
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        new = _RENAMES(pvt_stage(key, stages))
        owner, _, kind = new.rpartition(".")
        if new.startswith("head.") or owner.endswith(".mix"):
            renamed[new] = value
        elif owner.endswith(".attn.q") and owner.removesuffix(".q") in attentions:
            renamed |= _cut_queries(value, attentions[owner.removesuffix(".q")], owner.removesuffix(".q"), kind)
        elif owner.endswith(".kv_g"):
            names = (f"{owner.removesuffix('kv_g')}pooled.{part}.{kind}" for part in ("key", "value"))
            renamed |= {name: as_kernel(part) for name, part in zip(names, value.chunk(2), strict=True)}
        elif match := re.search(r"single_heads\.(\d)$", owner):
            names = (f"{owner[: match.start()]}windows.{match[1]}.{part}.{kind}" for part in ("key", "value"))
            renamed |= dict(zip(names, value.chunk(2), strict=True))
        else:
            renamed[new] = as_kernel(value)
    return renamed


def _cut_queries(value: Tensor, attn: FactorizedAttention, owner: str, kind: str) -> dict[str, Tensor]:
    """One projection per part: the pooled part's rows, then in every head the rows of each window part."""
    first, *widths = attn.widths
    pooled, local = value.split([first, value.shape[0] - first])
    heads = next(window.num_heads for window in attn.windows)
    by_head = local.unflatten(0, (heads, -1)).split([width // heads for width in widths], dim=1)  # type: ignore[operator]
    parts = [pooled, *(part.flatten(0, 1) for part in by_head)]
    return {f"{owner}.queries.{i}.{kind}": as_kernel(part) for i, part in enumerate(parts)}
