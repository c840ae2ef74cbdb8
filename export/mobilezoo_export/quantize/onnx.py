"""ONNX: float16 tensors, or static int8 as quantize/dequantize pairs (per channel, signed)."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo_export.metadata import INPUT
from mobilezoo_export.quantize.mixed import float_positions

ACTIVATIONS = {"int8": "QInt8", "uint8": "QUInt8", "uint16": "QUInt16"}
"""Type of activations → its name in ONNX Runtime's quantizer."""
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
        quantize_static(
            str(prepared),
            str(path),
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=getattr(QuantType, ACTIVATIONS[activations]),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_names(onnx.load(prepared).graph, float_segments),
        )


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
