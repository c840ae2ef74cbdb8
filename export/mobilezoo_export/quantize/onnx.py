"""ONNX: float16 tensors, or int8 weights (per channel) and 8- or 16-bit activations as quantize/dequantize pairs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo_export.metadata import INPUT
from mobilezoo_export.quantize.mixed import float_positions

ACTIVATIONS = {"int8": "QInt8", "uint8": "QUInt8", "uint16": "QUInt16"}
"""Type of activations → its name in ONNX Runtime's quantizer."""
FIXED_RANGES = {"Sigmoid": (65536, 0), "Tanh": (32768, 32768)}
"""Operator → steps of 16-bit values from 0 to 1, and the step of 0."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def to_float16(proto: Any) -> Any:
    """Convert weights and activations to float16; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True)


def to_int8(
    proto: Any,
    batches: Sequence[np.ndarray],
    path: Path,
    activations: str,
    float_segments: Sequence[int] = (),
) -> None:
    """Quantize a model statically (int8 weights per channel) and write it.

    Args:
        proto: float32 ModelProto.
        batches: NCHW calibration batches in the type of the model's input.
        path: file to write.
        activations: type of activations: int8; uint8 (u8s8) for x86 CPUs, whose integer kernels multiply unsigned with
            signed bytes; uint16.
        float_segments: segments that stay float, see `quantize.mixed`.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        onnx.save(proto, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        quantize_static(
            str(prepared),
            str(path),
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=getattr(QuantType, ACTIVATIONS[activations]),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_names(graph, float_segments),
            extra_options={"TensorQuantOverrides": _for_npus(graph, activations)},
        )


def _for_npus(graph: Any, activations: str) -> dict[str, list[dict[str, Any]]]:
    """Return types of single tensors as the Hexagon NPU needs them; to other runtimes they are as good.

    It refuses layer norms whose weight is signed, and fixes the range of 16-bit sigmoids and hyperbolic tangents
    (onnxruntime.quantization.execution_providers.qnn sets the latter for the same reason).
    """
    from onnxruntime.quantization import QuantType

    weight = {"quant_type": QuantType.QUInt8, "symmetric": False}
    found = {node.input[1]: [weight] for node in graph.node if node.op_type == "LayerNormalization"}
    for node in graph.node:
        if activations == "uint16" and node.op_type in FIXED_RANGES:
            steps, zero_point = FIXED_RANGES[node.op_type]
            scale = {"scale": np.array(1 / steps, np.float32), "zero_point": np.array(zero_point, np.uint16)}
            found[node.output[0]] = [{"quant_type": QuantType.QUInt16} | scale]
    return found


def _names(graph: Any, segments: Sequence[int]) -> list[str]:
    kept = float_positions([node.op_type in WEIGHTED for node in graph.node], segments)
    return [graph.node[position].name for position in sorted(kept)]


def _reader(batches: Sequence[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[np.ndarray] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    return Reader()
