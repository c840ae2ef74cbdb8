"""Blocks of the zoo's later families for whole stages of an `mbconv` network; see `mixers.py`.

Each is the family's own block class with the settings of its smallest published variant's late stages. What is ours, so
that widths and maps are free: heads of 32 channels, or of 16 or 8 where 32 do not divide the width; position tables of
7×7, which other maps resize; halo blocks as wide inside as outside.
"""

from collections.abc import Callable, Sequence

from torch import nn

RESOLUTION = (224, 224)
"""The configs below ask for one; blocks do not depend on it."""
TABLE = 7
"""Side of the map that position tables are made for."""


def _affnet(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.affnet import Config, Unit

    config = Config(family="affnet", resolution=RESOLUTION, widths=(width,) * 3, depths=(1, 1, depth), expansion=2)
    return [Unit(width, config, drop_path) for _ in range(depth)]


def _agent(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.layers.agent_attention import AgentAttention

    table, agents = (TABLE, TABLE), TABLE * TABLE
    attention = [AgentAttention(width, _heads(width), agents, table, class_token=False) for _ in range(depth)]
    return _transformer(attention, width, drop_path)


def _inline(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.layers.inline_attention import InlineAttention

    return _transformer(
        [InlineAttention(width, _heads(width), class_token=False) for _ in range(depth)], width, drop_path
    )


def _lightnet(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.layers.light_attention import LightAttention

    return _transformer(
        [LightAttention(width, _heads(width), class_token=False) for _ in range(depth)], width, drop_path
    )


def _transformer(attention: Sequence[nn.Module], width: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.transformer import Block

    return [Block(attn, width, 4.0, drop_path) for attn in attention]


def _care(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.care import Block, Config

    head_dim = next(dim for dim in (32, 16, 8, 4, 2) if width // 4 % dim == 0)
    config = Config(
        family="care",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        head_dims=(head_dim,),
        ratios=((4, 4),),
        layer_scale=1e-2,
    )
    return [Block(0, config, drop_path, last=False) for _ in range(depth)]


def _davit(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.davit import Config, DaViT

    config = Config(family="davit", resolution=RESOLUTION, widths=(width,), depths=(depth,), heads=(_heads(width),))
    return list(DaViT.make_stage(config, 0, [drop_path] * depth).blocks)


def _dsm(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.dsm import Block

    return [Block(width, 4, drop_path) for _ in range(depth)]


def _efficientmod(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.efficientmod import Config, EfficientMod

    attends = int(depth > 1)
    config = Config(
        family="efficientmod",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth - attends,),
        attention_depths=(attends,),
        attention_mlp_ratios=(4.0,),
        layer_scale=1e-2,
    )
    return list(EfficientMod.make_stage(config, 0, [drop_path] * depth).blocks)


def _fastvit(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from timm.models.fastvit import RepMixerBlock

    return [RepMixerBlock(width, mlp_ratio=3.0, drop_path=drop_path) for _ in range(depth)]


def _favit(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.favit import Block, Config

    config = Config(
        family="favit",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        heads=(7,),
        mlp_ratios=(4.0,),
        reductions=(1,),
        window_mean="windows",
    )
    return [Block(0, config, drop_path) for _ in range(depth)]


def _ffnet(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.ffnet import Block, Config

    config = Config(family="ffnet", resolution=RESOLUTION, widths=(width,), depths=(depth,), large_kernels=(True,))
    return [Block(width, True, config, drop_path) for _ in range(depth)]


def _focalnet(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.focalnet import Block, Config

    config = Config(family="focalnet", resolution=RESOLUTION, widths=(width,), depths=(depth,), levels=(2,))
    return [Block(width, 2, config, drop_path) for _ in range(depth)]


def _halonet(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from timm.layers import DropPath

    from mobilezoo.models.halonet import Config, HaloNet

    config = Config(
        family="halonet",
        resolution=RESOLUTION,
        widths=(width, width),
        depths=(depth, 1),  # timm builds no network of a single stage
        attends=(tuple(range(depth)), ()),
        strides=(1, 1),
        ratios=(1.0, 1.0),
        heads=(_heads(width), 1),
        block=TABLE,
        stem="3x3",
        stem_width=width,
        stem_pool=False,
        act="silu",
    )
    blocks = list(HaloNet(config, num_classes=0).get_submodule("stages.0").children())
    for block in blocks:
        block.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
    return blocks


def _iformer(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.iformer import AttentionBlock

    return [AttentionBlock(width, 2, 3, (drop_path, drop_path)) for _ in range(depth)]


def _moat(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.moat import Block, Config

    config = Config(
        family="moat",
        resolution=RESOLUTION,
        stem_width=width,
        widths=(width,),
        depths=(depth,),
        position_sizes=(TABLE,),
    )
    return [Block(width, 0, 1, config, drop_path) for _ in range(depth)]


def _moh(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.moh import Block, Config

    heads = width // 8 if width < 64 else _heads(width)  # two are shared, so narrow stages have smaller ones
    config = Config(
        family="moh",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        heads=(heads,),
        mlp_ratios=(4.0,),
        reductions=(1,),
        shared=(2,),
        routed=(-(-(heads - 2) * 2 // 3),),
    )
    return [Block(0, config, drop_path) for _ in range(depth)]


def _nat(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.nat import Block, Config

    config = Config(
        family="nat",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        heads=(_heads(width),),
        dilations=((1,),),
    )
    return [Block(0, 1, config, drop_path) for _ in range(depth)]


def _ravlt(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.ravlt import Block, Config

    config = Config(
        family="ravlt",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        heads=(_heads(width),),
        attention=("rala",),
        mlp_ratios=(3.5,),
        layer_scales=(1.0,),
    )
    return [Block(0, config, drop_path) for _ in range(depth)]


def _smt(width: int, depth: int, side: int, drop_path: float) -> list[nn.Module]:
    from mobilezoo.models.smt import Config, Smt

    config = Config(
        family="smt",
        resolution=RESOLUTION,
        widths=(width,),
        depths=(depth,),
        mlp_ratios=(4.0,),
        mixers=("both",),
        heads=(_heads(width),),
    )
    return list(Smt.make_stage(config, 0, [drop_path] * depth).blocks)


def _heads(width: int) -> int:
    return width // next(dim for dim in (32, 16, 8) if width % dim == 0)


FAMILY_MIXERS: dict[str, Callable[[int, int, int, float], list[nn.Module]]] = {
    "affnet": _affnet,
    "agent": _agent,
    "care": _care,
    "davit": _davit,
    "dsm": _dsm,
    "efficientmod": _efficientmod,
    "fastvit": _fastvit,
    "favit": _favit,
    "ffnet": _ffnet,
    "focalnet": _focalnet,
    "halonet": _halonet,
    "iformer": _iformer,
    "inline": _inline,
    "lightnet": _lightnet,
    "moat": _moat,
    "moh": _moh,
    "nat": _nat,
    "ravlt": _ravlt,
    "smt": _smt,
}
"""Family → maker of blocks from (width, depth, side of the map in pixels, drop path rate)."""
