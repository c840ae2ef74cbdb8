"""Quantization of the integer inputs and outputs of ONNX files, which the format keeps in adjacent operators."""

from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Quantization
from mobilezoo.errors import ExportError

BYTES = ("int8", "uint8")


def end_scales(path: Path) -> dict[str, Quantization]:
    """Return {input or output name: quantization}. Raises ExportError for a scale that is not one number."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types = {value.name: _numpy_name(value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)}
    found: dict[str, Quantization] = {}
    for node in graph.node:
        name = {"DequantizeLinear": node.input[:1], "QuantizeLinear": node.output[:1]}.get(node.op_type, [""])[0]
        if types.get(name) in BYTES:
            scale, zero_point = (constants.get(given) for given in (*node.input[1:3], "")[:2])
            found[name] = _quantization(path, name, types[name], scale, zero_point)
    return found


def has_wide_activations(path: Path) -> bool:
    """Whether an ONNX file quantizes activations to 16 bits; False for a file that cannot be read."""
    import onnx

    if b"QuantizeLinear" not in path.read_bytes():
        return False
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf raises errors of its own; the runtime names what is wrong
        return False
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    wide = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
    zeros = (node.input[2] for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2)
    return any(types.get(zero) in wide for zero in zeros)


def _numpy_name(elem_type: int) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type)) if elem_type else ""


def _quantization(path: Path, name: str, dtype: str, scale: Any, zero_point: Any) -> Quantization:
    import onnx

    read = onnx.numpy_helper.to_array
    scales, zero_points = (read(scale) if scale else None), (read(zero_point).ravel() if zero_point else [0])
    if scales is None or scales.size != 1 or len(zero_points) != 1:
        raise ExportError(f"{path.name!r}: {name!r} has no scale that is one number")
    fields = {"dtype": dtype, "scale": float(scales.item()), "zero_point": int(zero_points[0])}
    return Quantization.parse(fields, "file")
