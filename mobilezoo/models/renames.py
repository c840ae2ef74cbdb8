"""Official names of tensors → ours: what the families' `from_official` have in common."""

import re
from collections.abc import Callable

from torch import Tensor

Replacement = str | Callable[[re.Match[str]], str]


class Renames:
    """Regular expressions and what replaces them, applied to a name one after the other."""

    def __init__(self, *pairs: tuple[str, Replacement]) -> None:
        self.pairs = [(re.compile(pattern), replacement) for pattern, replacement in pairs]

    def __call__(self, name: str) -> str:
        for pattern, replacement in self.pairs:
            name = pattern.sub(replacement, name)
        return name


def as_kernel(value: Tensor, name: str = "") -> Tensor:
    """A matrix [out, in] as a 1×1 kernel [out, in, 1, 1]; other tensors, and the classifier's, as they are.

    Args:
        value: any tensor.
        name: our name; what is below `head.` belongs to a linear layer.
    """
    return value[:, :, None, None] if value.ndim == 2 and not name.startswith("head.") else value


def pvt_stage(key: str, stages: int) -> str:
    """Our names of stages and downsampling layers for those of PVT and its descendants; other keys stay.

    Args:
        key: official name, such as `block1.0.attn.q.weight`, `patch_embed2.proj.weight` or `norm1.weight`. The norm
            after a stage belongs to the next one's downsampling, the last norm to the head.
        stages: number of stages.
    """
    if match := re.match(r"norm(\d)\.(.*)", key):
        after = int(match[1])
        return f"head.norm.{match[2]}" if after == stages else f"stages.{after}.downsample.before.{match[2]}"
    if match := re.match(r"patch_embed([2-9])\.(proj|norm)\.(.*)", key):
        part = {"proj": "conv", "norm": "norm"}[match[2]]
        return f"stages.{int(match[1]) - 1}.downsample.{part}.{match[3]}"
    if match := re.match(r"block(\d)\.(.*)", key):
        return f"stages.{int(match[1]) - 1}.blocks.{match[2]}"
    return key
