"""Element by element: arithmetic, comparisons, activations, casts and quantization."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mobilezoo_export.mil.arguments import Arguments, as_tensor, operation

TYPES = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "bool": torch.bool,
}

UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tanh": torch.tanh,
}

BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.true_divide,
    "sub": torch.sub,
}


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Arguments], torch.Tensor]:
    return lambda a: function(a.tensor())


def _binary(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Arguments], torch.Tensor]:
    return lambda a: function(*torch.broadcast_tensors(a.tensor("x"), a.tensor("y")))


for _name, _one in UNARY.items():
    operation(_name)(_unary(_one))
for _name, _two in BINARY.items():
    operation(_name)(_binary(_two))


@operation("rsqrt")
def rsqrt(a: Arguments) -> torch.Tensor:
    return torch.rsqrt(a.tensor() + a.number("epsilon", 1e-12))


@operation("log")
def log(a: Arguments) -> torch.Tensor:
    return torch.log(a.tensor() + a.number("epsilon", 1e-45))


@operation("inverse")
def inverse(a: Arguments) -> torch.Tensor:
    return 1.0 / (a.tensor() + a.number("epsilon", 1e-4))


@operation("clip")
def clip(a: Arguments) -> torch.Tensor:
    return torch.clamp(a.tensor(), a.number("alpha"), a.number("beta"))


@operation("sigmoid_hard")
def sigmoid_hard(a: Arguments) -> torch.Tensor:
    return torch.clamp(a.tensor() * a.number("alpha", 0.2) + a.number("beta", 0.5), 0, 1)


@operation("leaky_relu")
def leaky_relu(a: Arguments) -> torch.Tensor:
    return F.leaky_relu(a.tensor(), a.number("alpha", 0.01))


@operation("elu")
def elu(a: Arguments) -> torch.Tensor:
    return F.elu(a.tensor(), a.number("alpha", 1.0))


@operation("thresholded_relu")
def thresholded_relu(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    return torch.where(x >= a.number("alpha", 1.0), x, 0.0)


@operation("prelu")
def prelu(a: Arguments) -> torch.Tensor:
    return F.prelu(a.tensor(), a.tensor("alpha"))


@operation("gelu")
def gelu(a: Arguments) -> torch.Tensor:
    mode, x = a.text("mode", "EXACT"), a.tensor()
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@operation("softmax")
def softmax(a: Arguments) -> torch.Tensor:
    return torch.softmax(a.tensor(), a.integer("axis", -1))


@operation("select")
def select(a: Arguments) -> torch.Tensor:
    return torch.where(a.tensor("cond").bool(), a.tensor("a"), a.tensor("b"))


@operation("cast")
def cast(a: Arguments) -> torch.Tensor:
    return a.tensor().to(TYPES[a.text("dtype")])


@operation("quantize")
def quantize(a: Arguments) -> torch.Tensor:
    kind = a.text("output_dtype")
    lowest, highest = (-128, 127) if kind == "int8" else (0, 255)
    scale, zero_point = _grid(a)
    return torch.clamp(torch.round(a.tensor("input") / scale) + zero_point, lowest, highest).to(TYPES[kind])


@operation("dequantize")
def dequantize(a: Arguments) -> torch.Tensor:
    scale, zero_point = _grid(a)
    return (a.tensor("input").float() - zero_point) * scale


def _grid(a: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point, shaped to broadcast along the quantized axis."""
    rank, axis = a.tensor("input").dim(), a.integer("axis", 0)

    def spread(value: torch.Tensor) -> torch.Tensor:
        value = value.float()
        return value.reshape([-1 if i == axis % rank else 1 for i in range(rank)]) if value.numel() > 1 else value

    zero_point = a.maybe_tensor("zero_point")
    return spread(a.tensor("scale")), spread(as_tensor(0.0) if zero_point is None else zero_point)
