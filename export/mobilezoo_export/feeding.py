"""Input values of a file: images in its layout and type, or noise of the right type and range."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mobilezoo.artifacts import InputSpec, Quantization
from mobilezoo.errors import ExportError
from mobilezoo_export.records import TensorSpec

if TYPE_CHECKING:
    from mobilezoo_export.contract import Runner

CHANNELS = (1, 3, 4)
USUAL_SIDE = 224
"""Side in pixels for files that take any size."""


def as_input(values: np.ndarray, spec: InputSpec, inputs: Sequence[TensorSpec]) -> np.ndarray:
    """Convert a batch to the layout and type of a file's only input.

    Args:
        values: float32 (or uint8 pixels) NCHW batch.
        spec: layout of the input.
        inputs: all inputs that the file declares.

    Raises:
        ExportError: the file takes more than one input, or no image.
    """
    if len(inputs) != 1 or spec.layout == "none":
        raise ExportError(f"the file takes {described(inputs)}: that is no single image")
    values = values[:, ::-1] if spec.colors == "BGR" else values
    laid_out = values.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else values
    return np.ascontiguousarray(_as_type(laid_out, inputs[0]))


def described(tensors: Sequence[TensorSpec]) -> str:
    """Format names, types and shapes as one line."""
    return ", ".join(f"{t.name} ({t.dtype} {'×'.join(map(str, t.shape)) or 'scalar'})" for t in tensors) or "nothing"


def noise(tensor: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    """Draw values of a tensor's type and range; zeros would let runtimes and processors skip work.

    Floats are normal noise, bytes are uniform over their range. Wider integers are 0 or 1, since a larger index or
    token may lie outside a table.

    Args:
        tensor: shape and type of the values.
        rng: source of randomness.

    Raises:
        ExportError: values of the tensor's type cannot be drawn (strings, complex numbers).
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
    """Draw seeded noise for every input.

    Args:
        inputs: inputs of a file.
        seed: of the random generator.

    Raises:
        ExportError: values of an input's type cannot be drawn.
    """
    rng = np.random.default_rng(seed)
    return [noise(tensor, rng) for tensor in inputs]


def noise_answers(runner: "Runner", count: int) -> np.ndarray:
    """Run a file on seeded noise, whatever its inputs are.

    Args:
        runner: the loaded file.
        count: number of runs, each with noise of its own.

    Returns:
        The chosen output of each run as one row, float32 (count, values).

    Raises:
        ExportError: values of an input's type cannot be drawn.
    """
    answers = []
    for seed in range(count):
        runner.feed(noise_for(runner.inputs, seed))
        runner.invoke()
        answers.append(np.array(runner.output(), dtype=np.float32).reshape(-1))
    return np.stack(answers)


def pieces(batch: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces of exactly `size` images, each with how many of them are of the batch.

    A file's batch size is fixed: the last piece is filled up with copies of its last image.

    Args:
        batch: (N, C, H, W), any N.
        size: the file's batch size.
    """
    for start in range(0, len(batch), size):
        piece = batch[start : start + size]
        images = len(piece)
        if images < size:
            piece = np.concatenate([piece, np.repeat(piece[-1:], size - images, axis=0)])
        yield np.ascontiguousarray(piece, dtype=np.float32), images


def rows(answer: np.ndarray, size: int) -> np.ndarray:
    """A copy of a file's answer, float32, with one row for each of `size` images.

    Args:
        answer: what the file computed for one piece.
        size: the file's batch size.

    Raises:
        ExportError: the answer has another number of rows.
    """
    copied = np.array(answer, dtype=np.float32)
    copied = copied[None] if size == 1 and copied.ndim < 2 else copied  # some leave the batch axis out
    if len(copied) != size:
        raise ExportError(f"{size} images give answers of shape {copied.shape}: one row for each is read here")
    return copied


def dequantized(values: np.ndarray, quantization: Quantization | None) -> np.ndarray:
    """Convert an output to float32.

    Args:
        values: the output as the runtime returns it.
        quantization: scale and zero point of integer outputs; None: the values are converted as they are.
    """
    numbers = values.astype(np.float32)
    return numbers if quantization is None else (numbers - quantization.zero_point) * quantization.scale


def _as_type(values: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """Cast or quantize values to the tensor's type."""
    dtype, how = np.dtype(tensor.dtype), tensor.quantization
    if dtype == values.dtype or dtype.kind not in "iu":
        return values.astype(dtype)
    limits, (scale, zero_point) = np.iinfo(dtype), (how.scale, how.zero_point) if how else (1.0, 0)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def image_input(inputs: Sequence[TensorSpec], habit: Literal["NCHW", "NHWC"]) -> InputSpec:
    """Describe a file's first input; it is an image if it is the only one and has four axes, one of them channels.

    Args:
        inputs: all inputs that the file declares.
        habit: the format's usual layout, which decides where both axes could hold 1, 3 or 4 channels.

    Raises:
        ExportError: the file takes no input.
    """
    if not inputs:
        raise ExportError("the file takes no input")
    tensor, layout = inputs[0], "none"
    if len(tensor.shape) == 4 and len(inputs) == 1:
        first, last = (tensor.shape[axis] in CHANNELS for axis in (1, 3))
        layout = habit if first and last else "NCHW" if first else "NHWC" if last else "none"
    fields = tensor.model_dump(include={"shape", "dtype", "quantization"}) | {"layout": layout}
    return InputSpec.parse(fields | ({"dtype": "uint8"} if tensor.pixels else {}), f"input {tensor.name!r}")


def sized(shape: Sequence[object], open_axes: Sequence[int], habit: Literal["NCHW", "NHWC"]) -> tuple[int, ...]:
    """Fill the open axes of a declared shape with usual sizes: one image of USUAL_SIDE pixels with three channels.

    Args:
        shape: declared shape; entries of open axes are ignored.
        open_axes: axes whose size the file leaves open.
        habit: the format's usual layout, which places the channels.

    Raises:
        ExportError: an open axis has no usual size.
    """
    usual = {0: 1}
    if len(shape) == 4:
        usual |= dict.fromkeys((1, 2, 3), USUAL_SIDE) | {1 if habit == "NCHW" else 3: 3}
    unknown = [axis for axis in open_axes if axis not in usual]
    if unknown:
        raise ExportError(f"the file leaves axis {unknown[0]} of an input with {len(shape)} axes open: export it fixed")
    return tuple(usual[axis] if axis in open_axes else int(str(size)) for axis, size in enumerate(shape))
