"""The shared weights: one tensor per layer at its largest, of which every network uses a part.

A network is built by the zoo as any other; only its tensors come from here. The part of a tensor that a network uses
follows from the two shapes alone: the first of its output and input channels, and the center of a larger kernel (Cai
et al., "Once for All", arXiv:1908.09791, section 3.2, without its kernel transforms; Yu et al., "BigNAS",
arXiv:2003.11142). A layer is shared over depths, widths, kernels and expansions; block types have their own layers,
each attention has its own beside a shared block, and whole-stage mixers have their own per width, since their channels
are split by role.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from mobilezoo.models import create_model
from mobilezoo.models.affnet import FILTER_GROUPS
from mobilezoo.models.smt import SCALES
from mobilezoo.search.genes import Value
from mobilezoo.search.networks import model_config
from mobilezoo.search.space import Point, Space
from mobilezoo.search.stages import ATTENDING, MIXERS, Stage
from mobilezoo.search.supernet.sandwich import bound

ROLES = {
    r"\.qkvo\.conv\.": 4,
    r"\.qkv\.conv\.": 3,
    r"\.qk\.conv\.": 2,
    r"\.scales\.pw\.": len(SCALES),
    r"\.layer[12]\.(real|imag|bias_real|bias_imag)\b": FILTER_GROUPS,
}
"""Parameters of attention that join several layers: joint projections, a quarter of the channels per kernel size, and
blocks of a frequency filter."""


class SharedBank(nn.Module):
    """The tensors, under the names of `bank_name`."""

    def __init__(self, space: Space, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.tensors = nn.ParameterDict()
        for number, point in covering(space):
            network = create_model(model_config(space, point, "covering"), num_classes=num_classes, in_chans=in_chans)
            for name, tensor in network.named_parameters():
                key = bank_name(name, point.stages)
                if key not in self.tensors and (not key.startswith("blocks/") or key.startswith(f"blocks/{number}/")):
                    self.tensors[key] = nn.Parameter(tensor.detach().clone())

    def part(self, name: str, stages: tuple[Stage, ...], shape: torch.Size) -> Tensor:
        """Returns the view of a shared tensor that is a network's parameter; gradients flow into the shared tensor.

        Args:
            name: the parameter's name in the network.
            stages: stages of the network.
            shape: shape of the parameter.
        """
        return crop(self.tensors[bank_name(name, stages)], shape, roles_of(name))


def bank_name(name: str, stages: tuple[Stage, ...]) -> str:
    """Names the shared tensor of a parameter: `blocks.3.1.conv_dw.weight` → `blocks/3/1/ir/conv_dw/weight`.

    Args:
        name: the parameter's name in the network.
        stages: stages of the network.
    """
    parts = name.split(".")
    if parts[0] == "blocks":
        stage, rest = stages[int(parts[1])], parts[3:]
        own = f"{stage.block}-{stage.width}" if stage.block in MIXERS else stage.block
        if rest[0] == "se":
            rest = [f"se-{stage.attention}", *rest[1:]]
        parts = [*parts[:3], own, *rest]
    return "/".join(parts)


def roles_of(name: str) -> int:
    """Counts the equal parts of a parameter's output channels that have roles of their own, such as queries and keys.

    Args:
        name: the parameter's name in the network.
    """
    return next((parts for pattern, parts in ROLES.items() if re.search(pattern, name)), 1)


def crop(whole: Tensor, shape: torch.Size, roles: int = 1) -> Tensor:
    """Crops a weight to its first channels, of each role, and the center of its kernel.

    Args:
        whole: [out, in, *kernel], or any prefix of these axes.
        shape: shape of the result, no larger on any axis.
        roles: equal parts of the output channels, each cropped alone.

    Returns:
        A view; with roles that are cropped a copy through which gradients flow.
    """
    if roles > 1 and whole.shape[0] > shape[0]:
        part = torch.Size([shape[0] // roles, *shape[1:]])
        return torch.cat([crop(role, part) for role in whole.chunk(roles)])
    assert whole.ndim == len(shape)
    for axis, (have, want) in enumerate(zip(whole.shape, shape, strict=True)):
        assert have >= want, "the covering networks hold every tensor at its largest"
        whole = whole.narrow(axis, (have - want) // 2 if axis >= 2 else 0, want)
    return whole


def covering(space: Space) -> Iterator[tuple[int, Point]]:
    """Generates (stage index, network) pairs, whose networks together hold every layer of that stage at its largest.

    One stage at a time has each of its unordered choices (block, attention, and a mixer's width); everything else is at
    its largest, the neighboring stages too.
    """
    for number in range(len(space.stages)):
        for fixed in _options(space, number):
            yield number, space.point(bound(space, max, fixed=fixed))


def _options(space: Space, number: int) -> Iterator[Mapping[str, Value]]:
    """Generates the settings of a stage's choices that have layers of their own."""
    stage, at = space.stages[number], f"s{number}."
    for block in stage.block:
        if block in MIXERS:
            yield from ({at + "block": block, at + "width": width} for width in stage.width)
        elif block in ATTENDING:
            yield from ({at + "block": block, at + "attention": attention} for attention in stage.attention)
        else:
            yield {at + "block": block}
