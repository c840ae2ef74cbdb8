"""The work of a network as a list of fused kernels with their sizes.

A LiteRT file is the best description: its operators are what the runtime executes, activations already fused into them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobilezoo.errors import DeviceError, existing_path, require

KINDS = ("conv1", "conv", "depthwise3", "depthwise", "dense", "matmul", "elementwise", "reduce", "move", "other")
"""conv1: 1x1; conv: larger; depthwise3: 3x3; depthwise: larger; reduce: pooling, means, softmax; move: copies."""
ELEMENTWISE = {"ADD", "MUL", "SUB", "DIV", "HARD_SWISH", "LOGISTIC", "RELU", "RELU6", "PRELU", "GELU", "TANH", "RSQRT"}
ELEMENTWISE |= {"SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM", "LEAKY_RELU", "EXP", "SQRT", "NEG", "ABS", "ELU", "POW"}
REDUCE = {"MEAN", "SUM", "AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX", "SOFTMAX", "L2_NORMALIZATION"}
MOVE = {"RESHAPE", "TRANSPOSE", "CONCATENATION", "PAD", "PADV2", "SLICE", "STRIDED_SLICE", "SPLIT", "PACK", "UNPACK"}
MOVE |= {"GATHER", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "EXPAND_DIMS", "SQUEEZE", "BROADCAST_TO", "SPLIT_V"}
TRANSPOSE_BIAS = "Convolution2DTransposeBias"
"""MediaPipe's custom operator, which XNNPACK takes."""
BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT8": 1, "UINT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "INT16": 2}
LANES = (8, 16)
"""Widths that runtimes round output channels up to: tiles of XNNPACK's float kernels on NEON and on AVX-512."""
PER_KIND = ("count", "mmacs", *(f"mmacs{lanes}" for lanes in LANES), "activation_mb", "weight_mb")
FEATURES = tuple(f"{kind}_{what}" for kind in KINDS for what in PER_KIND)


class Kernel(NamedTuple):
    """One operator with its fused activation."""

    kind: str
    macs: float
    activation_bytes: float
    """Read and written, weights excluded."""
    weight_bytes: float
    channels: int = 0
    """Output channels of kernels with multiply-adds."""
    operator: str = ""
    """The file's name of the operator, CONV_2D; empty without a file."""
    shape: tuple[int, ...] = ()
    """Of its first output, in the file."""


def conv(k: int, c_in: int, c_out: int, h_out: int, w_out: int, stride: int = 1, groups: int = 1) -> Kernel:
    """Describes a float32 convolution, for networks that are not exported.

    Args:
        k: kernel size; kernels are square.
        c_in: input channels.
        c_out: output channels.
        h_out: height of the output.
        w_out: width of the output.
        stride: the same in both directions.
        groups: channel groups; `c_in` for depthwise.
    """
    macs = k * k * c_in * c_out * h_out * w_out / groups
    moved = 4.0 * (c_in * h_out * w_out * stride * stride + c_out * h_out * w_out)
    return Kernel(_conv_kind(k, groups > 1 and groups == c_in), macs, moved, 4.0 * k * k * c_in * c_out / groups, c_out)


def features(kernels: Sequence[Kernel]) -> list[float]:
    """Counts, MACs (plain, and with channels rounded up to LANES) and traffic per kind, in the order of FEATURES."""
    sums = {kind: [0.0] * len(PER_KIND) for kind in KINDS}
    for kernel in kernels:
        macs = [kernel.macs * _rounding(kernel.channels, lanes) for lanes in (1, *LANES)]
        total = sums[kernel.kind]
        for i, value in enumerate((1e6, *macs, kernel.activation_bytes, kernel.weight_bytes)):
            total[i] += value / 1e6
    return [value for kind in KINDS for value in sums[kind]]


def _rounding(channels: int, lanes: int) -> float:
    return -(-channels // lanes) * lanes / channels if channels else 1.0


def total_macs(kernels: Sequence[Kernel]) -> float:
    """Multiply-adds of a whole network."""
    return sum(kernel.macs for kernel in kernels)


def kernels_of(path: str | Path) -> list[Kernel]:
    """The kernels of a LiteRT file's first subgraph. Raises DeviceError for another kind of file."""
    require("ai_edge_litert", "litert")
    from ai_edge_litert import schema_py_generated as schema

    file = existing_path(path, "artifact")
    data = file.read_bytes() if file.is_file() else b""
    if data[4:8] != b"TFL3":
        raise DeviceError(f"{file.name!r} is no LiteRT file: kernels are read from .tflite files")
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    found = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
        if name == "CUSTOM":
            name = (code.CustomCode() or b"CUSTOM").decode(errors="replace")
        inputs = [_Tensor.of(model, graph, operator.Inputs(j), types) for j in range(operator.InputsLength())]
        outputs = [_Tensor.of(model, graph, operator.Outputs(j), types) for j in range(operator.OutputsLength())]
        found.append(_kernel(name, [t for t in inputs if t], [t for t in outputs if t]))
    return found


class _Tensor(NamedTuple):
    shape: tuple[int, ...]
    size_bytes: float
    constant: bool

    @classmethod
    def of(cls, model: Any, graph: Any, index: int, types: dict[int, str]) -> "_Tensor | None":
        if index < 0:  # an optional input that is absent
            return None
        tensor = graph.Tensors(index)
        shape = tuple(tensor.Shape(k) for k in range(tensor.ShapeLength()))
        size = float(BYTES.get(types.get(tensor.Type(), ""), 4))
        for length in shape:
            size *= length
        return cls(shape, size, model.Buffers(tensor.Buffer()).DataLength() > 0)


def _kernel(name: str, inputs: list[_Tensor], outputs: list[_Tensor]) -> Kernel:
    moved = sum(t.size_bytes for t in (*inputs, *outputs) if not t.constant)
    weights = sum(t.size_bytes for t in inputs if t.constant)
    positions = _product(outputs[0].shape[:-1]) if outputs else 0.0
    kind, macs = "other", 0.0
    if name == "CONV_2D" and len(inputs) > 1:
        out, height, width, depth = inputs[1].shape  # depth is per group
        kind, macs = _conv_kind(max(height, width), False), positions * out * height * width * depth
    elif name == "DEPTHWISE_CONV_2D" and len(inputs) > 1:
        _, height, width, channels = inputs[1].shape
        kind, macs = _conv_kind(max(height, width), True), positions * channels * height * width
    elif (name == "TRANSPOSE_CONV" and len(inputs) > 2) or (name == TRANSPOSE_BIAS and len(inputs) > 1):
        image, weight = (inputs[0], inputs[1]) if name == TRANSPOSE_BIAS else (inputs[2], inputs[1])
        kind, macs = _conv_kind(max(weight.shape[1:3]), False), _product(image.shape[:-1]) * _product(weight.shape)
    elif name == "FULLY_CONNECTED" and len(inputs) > 1:
        kind, macs = "dense", positions * _product(inputs[1].shape)
    elif name == "BATCH_MATMUL" and outputs:
        kind, macs = "matmul", _product(outputs[0].shape) * inputs[0].shape[-1]
    elif name in ELEMENTWISE:
        kind = "elementwise"
    elif name in REDUCE:
        kind = "reduce"
    elif name in MOVE:
        kind = "move"
    channels = outputs[0].shape[-1] if macs else 0
    return Kernel(kind, macs, moved, weights, channels, name, outputs[0].shape if outputs else ())


def _conv_kind(k: int, depthwise: bool) -> str:
    if depthwise:
        return "depthwise3" if k <= 3 else "depthwise"
    return "conv1" if k == 1 else "conv"


def _product(shape: tuple[int, ...]) -> float:
    total = 1.0
    for length in shape:
        total *= length
    return total
