"""What goes into a file's inputs: images in its layout and type, or noise of the right type and range."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mobilezoo.artifacts import InputSpec, Quantization
from mobilezoo.errors import ExportError
from mobilezoo_export.records import TensorSpec

CHANNELS = (1, 3, 4)
USUAL_SIDE = 224
"""Pixels, where a file takes any size."""


def as_input(values: np.ndarray, spec: InputSpec, inputs: Sequence[TensorSpec]) -> np.ndarray:
    """An NCHW batch as the file's one input wants it. Raises ExportError for files that take more, or no image."""
    if len(inputs) != 1 or spec.layout == "none":
        raise ExportError(f"the file takes {described(inputs)}: that is no single image")
    laid_out = values.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else values
    return np.ascontiguousarray(_as_type(laid_out, inputs[0]))


def described(tensors: Sequence[TensorSpec]) -> str:
    """Names, types and shapes in one line."""
    return ", ".join(f"{t.name} ({t.dtype} {'×'.join(map(str, t.shape)) or 'scalar'})" for t in tensors) or "nothing"


def noise(tensor: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    """Values of a tensor's type and range: zeros would let runtimes and processors take short cuts.

    Floats are normal noise, bytes are uniform over their range; wider integers are 0 or 1, since as an index or a
    token anything larger may lie outside of a table.
    """
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(tensor.shape, dtype=np.float32).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, tensor.shape, dtype=dtype, endpoint=True)
    if dtype.kind in "iub":
        return rng.integers(0, 2, tensor.shape).astype(dtype)
    raise ExportError(f"input {tensor.name!r} holds {tensor.dtype}: no values are known for that")


def noise_for(inputs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """Seeded noise for every input."""
    rng = np.random.default_rng(seed)
    return [noise(tensor, rng) for tensor in inputs]


def dequantized(values: np.ndarray, quantization: Quantization | None) -> np.ndarray:
    """The numbers that an output stands for, float32."""
    numbers = values.astype(np.float32)
    return numbers if quantization is None else (numbers - quantization.zero_point) * quantization.scale


def _as_type(values: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """Float values, or pixels, as the tensor's type."""
    dtype, how = np.dtype(tensor.dtype), tensor.quantization
    if dtype == values.dtype or dtype.kind not in "iu":
        return values.astype(dtype)
    limits, (scale, zero_point) = np.iinfo(dtype), (how.scale, how.zero_point) if how else (1.0, 0)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def image_input(inputs: Sequence[TensorSpec], habit: Literal["NCHW", "NHWC"]) -> InputSpec:
    """The file's first input, taken for an image where it has the shape of one.

    Images have 1, 3 or 4 channels; where both axes could hold them, the format's habit decides.
    """
    if not inputs:
        raise ExportError("the file takes no input")
    tensor, layout = inputs[0], "none"
    if len(tensor.shape) == 4 and len(inputs) == 1:
        first, last = (tensor.shape[axis] in CHANNELS for axis in (1, 3))
        layout = habit if first and last else "NCHW" if first else "NHWC" if last else "none"
    told = tensor.model_dump(include={"shape", "dtype", "quantization"}) | {"layout": layout}
    return InputSpec.parse(told | ({"dtype": "uint8"} if tensor.pixels else {}), f"input {tensor.name!r}")


def sized(shape: Sequence[object], open_axes: Sequence[int], habit: Literal["NCHW", "NHWC"]) -> tuple[int, ...]:
    """A declared shape with the usual sizes in its open axes: one image, of USUAL_SIDE pixels, with three channels."""
    usual = {0: 1}
    if len(shape) == 4:
        usual |= dict.fromkeys((1, 2, 3), USUAL_SIDE) | {1 if habit == "NCHW" else 3: 3}
    unknown = [axis for axis in open_axes if axis not in usual]
    if unknown:
        raise ExportError(f"the file leaves axis {unknown[0]} of an input with {len(shape)} axes open: export it fixed")
    return tuple(usual[axis] if axis in open_axes else int(str(size)) for axis, size in enumerate(shape))
