"""Blocks of other families for whole stages of an `mbconv` network.

SHViT (arXiv:2401.16456), CAS-ViT (arXiv:2408.03703), EMOv2 (arXiv:2412.06674) and MobileMamba (arXiv:2411.15941): each
family's own block class with the settings that its smallest published variant has in its last stages, where maps are
small enough for them. What is ours: the share of SHViT's channels that attend (3 of 14, as in its second stage) for
any width, EMOv2's head size and window for any width and map. Later families stand in `family_mixers.py`.
"""

from collections.abc import Callable

from torch import nn

from mobilezoo.models.family_mixers import FAMILY_MIXERS

RESOLUTION = (224, 224)
"""The configs below ask for one; blocks do not depend on it."""


def create_mixers(name: str, width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    """Build blocks of a family, maps [B, width, side, side] in and out.

    Args:
        name: key of `MIXERS`.
        width: channels, a multiple of 8.
        depth: number of blocks.
        side: side of the map in pixels, which sets EMOv2's window.
        drop_path: rate of stochastic depth, the same for all blocks.
    """
    return MIXERS[name](width, depth, side, drop_path)


def _shvit(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from timm.models.shvit import BasicBlock

    from mobilezoo.models.shvit import add_drop_path

    attended = width * 3 // 14 // 4 * 4 or 4
    blocks = [BasicBlock(width, 16, attended, type="s") for _ in range(depth)]
    for block in blocks:
        add_drop_path(block, drop_path)
    return blocks


def _cas_vit(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.cas_vit import Block, Config

    config = Config(family="cas_vit", resolution=RESOLUTION, depths=(depth,), widths=(width,))
    return [Block(width, config, drop_path) for _ in range(depth)]


def _emov2(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.emov2 import Block, Config

    config = Config(
        family="emov2",
        resolution=RESOLUTION,
        stem_width=width,
        depths=(depth,),
        widths=(width,),
        expansions=(3.0,),
        kernels=(5,),
        norms=("layer",),
        acts=("gelu",),
        attention=("hybrid",),
        head_dims=(next(dim for dim in (20, 16, 8) if width % dim == 0),),
        window=side if side <= 8 else next((w for w in (7, 8) if side % w == 0), 7),
    )
    return [Block(width, width, 0, config, downsample=False, drop_path=drop_path) for _ in range(depth)]


def _mobilemamba(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.mobilemamba import Block, Config

    config = Config(
        family="mobilemamba",
        resolution=RESOLUTION,
        depths=(depth,),
        widths=(width,),
        kernels=(3,),
        global_ratios=(0.6,),
        local_ratios=(0.3,),
    )
    return [Block(width, 0, config, drop_path) for _ in range(depth)]


MIXERS: dict[str, Callable[[int, int, int, float], list[nn.Module]]] = {
    "shvit": _shvit,
    "cas_vit": _cas_vit,
    "emov2": _emov2,
    "mobilemamba": _mobilemamba,
    **FAMILY_MIXERS,
}
"""Family → maker of blocks from (width, depth, side of the map in pixels, drop path rate)."""
