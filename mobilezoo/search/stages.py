"""Stages of a network: block types, their fields, and their cost in multiply-adds."""

from typing import Any

from mobilezoo.config import Record
from mobilezoo.models.notation import Block

KERNELS = (1, 3, 5, 7, 9)
EXPANDING: tuple[Block, ...] = ("er", "ir")
ATTENDING: tuple[Block, ...] = ("ds", "er", "ir")
CONVOLVING: tuple[Block, ...] = ("cn", "ds", "er", "ir")
MIXERS: dict[str, float] = {
    "shvit": 5.5,
    "cas_vit": 13,
    "emov2": 9,
    "mobilemamba": 12,
    "affnet": 5.1,
    "agent": 13.8,
    "care": 13.4,
    "davit": 12.9,
    "dsm": 10.1,
    "efficientmod": 13.3,
    "fastvit": 6.5,
    "favit": 12.4,
    "ffnet": 8.1,
    "focalnet": 12.4,
    "halonet": 9.1,
    "iformer": 12.5,
    "inline": 12.6,
    "lightnet": 13.1,
    "moat": 15.5,
    "moh": 16.1,
    "nat": 10.8,
    "ravlt": 13.1,
    "smt": 14.6,
}
"""Whole-stage mixer → approximate multiply-adds of its block per pixel, in units of its squared width."""
ENTRY_EXPANSION = 4.0
"""Expansion ratio of the inverted residual (3x3) that downsamples before a stage's mixers, as in SHViT and
MobileMamba."""


class Stage(Record):
    """One stage of a network: `depth` blocks of one kind, the first with the stride."""

    block: Block
    """cn: convolution, ds: depthwise separable, er: fused inverted residual, ir: inverted residual (MBConv); or a
    mixer."""
    kernel: int
    stride: int
    expansion: float
    """Expansion ratio; 1 where the block has none."""
    attention: str
    skip: bool
    """Residual where shapes allow one."""
    width: int
    """Output channels."""
    depth: int


PLAIN: dict[str, Any] = {"kernel": 3, "expansion": 1.0, "attention": "none", "skip": True}
"""Values of a stage's fields where its block leaves no choice."""


def stage_cost(stage: Stage, in_channels: int, area: float = 1.0) -> float:
    """Computes the multiply-adds of a stage, to compare stages.

    Args:
        stage: the stage.
        in_channels: channels of its input.
        area: pixels of its input; 1 gives the cost per input pixel.

    Returns:
        Multiply-adds; attention counts one per pixel and channel, mixers approximately.
    """
    if stage.block in MIXERS:
        return _mixer_cost(stage, in_channels, area)
    cost, chs = 0.0, in_channels
    for index in range(stage.depth):
        # Only the first block has the stage's stride and another number of input channels.
        out_area = area / stage.stride**2 if index == 0 else area
        if stage.block == "cn":
            cost += out_area * stage.kernel**2 * chs * stage.width
        else:
            # The expansion runs before the stride, the spatial convolution and the projection after it; `er` fuses the
            # expansion into a dense spatial convolution, `ds` has none.
            mid = chs * stage.expansion
            spatial = stage.kernel**2 * (chs if stage.block == "er" else 1) * mid
            widen = chs * mid if stage.block == "ir" and stage.expansion > 1 else 0
            cost += area * widen + out_area * (spatial + mid * stage.width)
        cost += 0 if stage.attention == "none" else out_area * chs
        chs, area = stage.width, out_area
    return cost


def _mixer_cost(stage: Stage, in_channels: int, area: float) -> float:
    """Computes the multiply-adds of the downsampling block, plus approximate ones of the mixers."""
    entry = {**PLAIN, "expansion": ENTRY_EXPANSION, "width": stage.width, "depth": 1, "stride": stage.stride}
    mixers = area / stage.stride**2 * stage.depth * MIXERS[stage.block] * stage.width**2
    return stage_cost(Stage(block="ir", **entry), in_channels, area) + mixers
