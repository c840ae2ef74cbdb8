"""Element by element: arithmetic, comparisons, activations, casts and quantization."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mobilezoo_export.aimodel.arguments import Arguments, operation

UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "log": torch.log,
    "not": torch.logical_not,
    "relu": torch.relu,
    "round": torch.round,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
}

BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "and": torch.logical_and,
    "equal": torch.eq,
    "floor_divide": torch.floor_divide,
    "greater": torch.gt,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "modulo": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "or": torch.logical_or,
    "pow": torch.pow,
    "sub": torch.sub,
}


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Arguments], torch.Tensor]:
    return lambda a: function(a.tensor())


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Arguments], torch.Tensor]:
    return lambda a: function(a.tensor(0), a.tensor(1))


for _name, _one in UNARY.items():
    operation(_name)(_unary(_one))
for _name, _two in BINARY.items():
    operation(_name)(_binary(_two))


@operation("divide")
def divide(a: Arguments) -> torch.Tensor:
    """Integers are cut towards zero."""
    x, y = a.tensor(0), a.tensor(1)
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


@operation("gelu")
def gelu(a: Arguments) -> torch.Tensor:
    x, kind = a.tensor(), a.chosen("approximate")
    if kind == "sigmoid":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if kind == "tanh" else "none")


@operation("softmax")
def softmax(a: Arguments) -> torch.Tensor:
    return torch.softmax(a.tensor(), a.integer(1))


@operation("where")
def where(a: Arguments) -> torch.Tensor:
    return torch.where(a.tensor(0).bool(), a.tensor(1), a.tensor(2))


@operation("cast")
def cast(a: Arguments) -> torch.Tensor:
    """The result's type is applied where it is stored; integers are cut towards zero."""
    x = a.tensor()
    return x.trunc() if x.is_floating_point() and "int" in a.dtype else x


@operation("blockwise_shift_scale")
def blockwise_shift_scale(a: Arguments) -> torch.Tensor:
    """Weights stored as integers: scale * (data - offset1) + offset2, one scale for each block."""
    data, scale, shift, bias = (value.float() for value in a.tensors())
    for axis, size in enumerate(data.shape):
        blocks = size // scale.shape[axis]
        scale, shift, bias = (value.repeat_interleave(blocks, axis) for value in (scale, shift, bias))
    return scale * (data - shift) + bias


@operation("quantize")
def quantize(a: Arguments) -> torch.Tensor:
    scale, shift, bias = _grid(a)
    limits = torch.iinfo(getattr(torch, a.dtype))
    return torch.clamp(torch.round((a.tensor() - bias) / scale) + shift, limits.min, limits.max)


@operation("dequantize")
def dequantize(a: Arguments) -> torch.Tensor:
    scale, shift, bias = _grid(a)
    return (a.tensor().float() - shift) * scale + bias


def _grid(a: Arguments) -> list[torch.Tensor]:
    """Scale and both offsets, shaped to broadcast along the quantized axis."""
    rank, axes = a.tensor().dim(), a.integers(4)
    shape = [-1 if axis == axes[0] % rank else 1 for axis in range(rank)]
    return [value.float().reshape(shape if value.numel() > 1 else []) for value in a.tensors(1)[:3]]
