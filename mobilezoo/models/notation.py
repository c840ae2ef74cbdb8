"""timm's architecture notation for a stage, `ir_r2_k3_s2_e6_c24_se0.25`: text only, no torch."""

from typing import Literal, Protocol

Block = Literal[
    "ds",
    "ir",
    "er",
    "cn",
    "shvit",
    "cas_vit",
    "emov2",
    "mobilemamba",
    "affnet",
    "agent",
    "care",
    "davit",
    "dsm",
    "efficientmod",
    "fastvit",
    "favit",
    "ffnet",
    "focalnet",
    "halonet",
    "iformer",
    "inline",
    "lightnet",
    "moat",
    "moh",
    "nat",
    "ravlt",
    "smt",
]
"""Block of a stage: three of MobileNets', a plain convolution, and the families whose blocks make a whole stage."""

SE_RATIO = 0.25
"""Hidden channels of squeeze-and-excitation over the block's input channels, where nothing else is said."""


LEAST_WIDTHS = {"moat": 32, "moh": 16}
"""Whole-stage mixer → least channels, where 8 make no head, or too few of them."""


class Words(Protocol):
    """What the notation writes of a stage."""

    @property
    def block(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def expansion(self) -> float: ...
    @property
    def width(self) -> int: ...
    @property
    def attention(self) -> str: ...
    @property
    def skip(self) -> bool: ...


def stage_string(stage: Words, se_ratio: float = SE_RATIO) -> str:
    """Write a stage in timm's notation; attention other than squeeze-and-excitation has none there.

    Args:
        stage: the stage.
        se_ratio: hidden channels over the block's input channels, written where `attention` is se.
    """
    parts = [stage.block, f"r{stage.depth}", f"k{stage.kernel}", f"s{stage.stride}"]
    if stage.block in ("ir", "er"):
        parts.append(f"e{stage.expansion:g}")
    parts.append(f"c{stage.width}")
    if stage.attention == "se":
        parts.append(f"se{se_ratio:g}")
    if stage.block == "cn":
        parts += ["skip"] if stage.skip else []
    elif not stage.skip:
        parts.append("noskip")
    return "_".join(parts)
