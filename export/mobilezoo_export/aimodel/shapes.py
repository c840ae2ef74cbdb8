"""Moving and reducing: reshapes, slices, concatenations, reductions."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from mobilezoo_export.aimodel.arguments import Arguments, operation

REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_sum": torch.sum,
}
MODES = {"replicate": "replicate", "reflect": "reflect", "circular": "circular"}
"""Padding modes besides `constant`, by the name of `F.pad`."""


def _reduction(function: Callable[..., torch.Tensor]) -> Callable[[Arguments], torch.Tensor]:
    return lambda a: function(a.tensor(), a.integers(1), keepdim=True)


for _name, _function in REDUCTIONS.items():
    operation(_name)(_reduction(_function))


@operation("argmax")
def argmax(a: Arguments) -> torch.Tensor:
    return torch.argmax(a.tensor(), a.integer(1), keepdim=True)


@operation("reshape")
def reshape(a: Arguments) -> torch.Tensor:
    return a.tensor().reshape(a.integers(1))


@operation("transpose")
def transpose(a: Arguments) -> torch.Tensor:
    return a.tensor().permute(a.integers(1))


@operation("expand_dims")
def expand_dims(a: Arguments) -> torch.Tensor:
    x, axes = a.tensor(), a.integers(1)
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("shrink_dims")
def shrink_dims(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    gone = {axis % x.dim() for axis in a.integers(1)}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


@operation("get_shape")
def get_shape(a: Arguments) -> torch.Tensor:
    return torch.tensor(a.tensor().shape)


@operation("concat")
def concat(a: Arguments) -> torch.Tensor:
    """Operands: the axis, then the values."""
    return torch.cat(a.tensors(1), a.integer(0))


@operation("split")
def split(a: Arguments) -> Sequence[torch.Tensor]:
    """Operands: input, one size or a list of sizes, axis."""
    sizes = a.integers(1)
    return torch.split(a.tensor(), sizes if a.tensor(1).dim() else sizes[0], a.integer(2))


@operation("slice")
def slice_(a: Arguments) -> torch.Tensor:
    """Operands: input, starts, ends, steps of every axis."""
    index = tuple(slice(*bounds) for bounds in zip(*(a.integers(place) for place in (1, 2, 3)), strict=True))
    if min(a.integers(3), default=1) < 0:
        raise NotImplementedError("slice with a negative step")
    return a.tensor()[index]


@operation("pad")
def pad(a: Arguments) -> torch.Tensor:
    """Operands: input, amounts before and after each axis, value."""
    x, amounts, mode = a.tensor(), a.integers(1), a.chosen("padding_mode")
    pairs = [amounts[place : place + 2] for place in range(0, len(amounts), 2)]
    last_first = [value for pair in reversed(pairs) for value in pair]
    if mode in ("constant", ""):
        return F.pad(x, last_first, value=float(a.tensor(2)))
    if mode not in MODES:
        raise NotImplementedError(f"pad with the mode {mode}")
    while len(last_first) > 4 and last_first[-2:] == [0, 0]:
        last_first = last_first[:-2]
    return F.pad(x, last_first, mode=MODES[mode])


@operation("broadcast_to")
def broadcast_to(a: Arguments) -> torch.Tensor:
    return a.tensor().expand(a.integers(1))


@operation("broadcast_in_dims")
def broadcast_in_dims(a: Arguments) -> torch.Tensor:
    """Operands: input, sizes, axes that get them."""
    shape = list(a.tensor().shape)
    for size, axis in zip(a.integers(1), a.integers(2), strict=True):
        shape[axis] = size
    return a.tensor().expand(shape)


@operation("tile")
def tile(a: Arguments) -> torch.Tensor:
    return a.tensor().tile(a.integers(1))


@operation("gather_along_axis")
def gather_along_axis(a: Arguments) -> torch.Tensor:
    x, axis = a.tensor(0), a.integer(2)
    return torch.gather(x, axis, a.tensor(1).long() % x.shape[axis])


@operation("gather_nd")
def gather_nd(a: Arguments) -> torch.Tensor:
    return a.tensor(0)[tuple(a.tensor(1).long().unbind(-1))]
