"""LiteRT: float16 weights, dynamic-range int8, or int8 weights with calibrated int8 or int16 activations."""

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo_export.coverage import outside_litert
from mobilezoo_export.litert_spelling import ADDED
from mobilezoo_export.quantize.mixed import float_positions

FLOAT_ON_CPUS = (
    "GELU",
    "HARD_SWISH",
    "SOFTMAX",
    "BATCH_MATMUL",
    "RSQRT",
    "SQRT",
    "SQUARED_DIFFERENCE",
    "DIV",
    "MAXIMUM",
    "RELU",
)
"""Operators that XNNPACK takes in float only; in int8 they would split the graph and run in LiteRT's slower kernels. A
ReLU behind a convolution is fused into it; this one stands alone."""
ROOTS = ("RSQRT", "SQRT")
"""Operators that turn a norm's variance into what it divides by."""
STATISTICS = ("MEAN", "CONV_2D", "RESHAPE", "ADD")
"""Operators that compute the means and variances of norms; a 1 × 1 convolution sums channels."""
MADE_BY = {"MUL": ("SUB",), "CONV_2D": ("MEAN",)}
"""Operator → producers of its inputs that belong to the norm; for all others: STATISTICS."""
ELEMENTWISE = ("ADD", "SUB", "MUL", "DIV", "RESHAPE")
WIDER = 1.02
LEAST_PART = 256
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE", "BATCH_MATMUL")


def quantize(
    source: Path,
    target: Path,
    precision: str,
    input_batches: Sequence[np.ndarray] = (),
    int8_io: bool = False,
    float_segments: Sequence[int] = (),
) -> None:
    """Quantize a float32 file.

    Args:
        source: float32 LiteRT file.
        target: file to write; may be the same.
        precision: fp16, int8, int8-dynamic or w8a16.
        input_batches: calibration batches in the layout and type of the file's input, for int8 and w8a16.
        int8_io: int8 files have int8 input and output and keep float only where the quantizer has no int8 kernel, as
            accelerators require; otherwise input, output, norms, and operators that are faster in float on CPUs
            stay float. w8a16 files have int16 input and output, or float ones; the rest is the same.
        float_segments: segments that stay float, see `quantize.mixed`.
    """
    recipe = _recipe(precision, int8_io) + _kept_float(source, precision, int8_io, float_segments)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "quantized.tflite"
        ranges = _quantize_by(recipe, source, made, input_batches, wide=precision == "w8a16")
        if precision == "int8" and not int8_io:
            _without_refused(recipe, source, made, ranges)
        target.write_bytes(made.read_bytes())  # the quantizer marks its files as programs


def _quantize_by(
    recipe: Any, source: Path, made: Path, batches: Sequence[np.ndarray] = (), ranges: Any = None, wide: bool = False
) -> Any:
    """Write the quantized file; returns the ranges of its tensors, measured on the batches unless given.

    Ranges of 16-bit activations (`wide`) are kept off powers of two.
    """
    from ai_edge_quantizer import quantizer

    engine = quantizer.Quantizer(str(source), recipe)
    if ranges is None and engine.need_calibration:
        ranges = _ranges(source, engine, batches)
        if wide:
            _widen_powers_of_two(ranges)
        else:
            _widen_small_parts(source, ranges)
    engine.quantize(ranges).export_model(made)
    return ranges


def _without_refused(recipe: Any, source: Path, made: Path, ranges: Any) -> None:
    """Quantize again with the operators in float that XNNPACK takes in float only, where that gives fewer partitions.

    Besides `FLOAT_ON_CPUS`, it refuses sums whose parts have scales more than a thousand times apart, and the like.
    """
    refused, partitions = outside_litert(made)
    refused -= outside_litert(source)[0] if refused else set()
    if not refused:
        return
    again = made.with_name("again.tflite")
    _quantize_by(recipe + _named_in_float(sorted(refused), ";?"), source, again, ranges=ranges)
    if outside_litert(again)[1] < partitions:
        again.replace(made)


def _ranges(source: Path, engine: Any, input_batches: Sequence[np.ndarray]) -> Any:
    """Measure the smallest and largest value of each tensor over all images.

    The quantizer's own default is a moving average, which clips rare large values.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    name, key = _signature(source)
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(engine.get_quantization_recipe())
    measuring = calibrator.Calibrator(str(source), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    measuring.calibrate({key: [{name: batch} for batch in input_batches]}, recipes)
    return measuring.get_model_qsvs()


def _widen_powers_of_two(ranges: dict[str, dict[str, Any]]) -> None:
    """Widen, by a fiftieth, ranges whose scale would be a power of two.

    Where all scales of a 16-bit ADD or SUB are such, LiteRT's kernel takes them as shifts, of which it accepts few
    (`tflite/kernels/add.cc`): the file would not load.
    """
    for one in ranges.values():
        bound = _bound(one)
        exponent = np.log2(bound) if bound > 0 else 0.5
        if abs(exponent - round(exponent)) < 0.01:
            one["min"], one["max"] = one["min"] * WIDER, one["max"] * WIDER


def _widen_small_parts(source: Path, ranges: dict[str, dict[str, Any]]) -> None:
    """Widen the range of a sum's part that is next to nothing beside the sum: a branch that training switched off.

    XNNPACK takes no sum whose parts have scales more than a thousand times apart. The part keeps a 256th of the sum's
    range, so what it adds stays the same; only parts that nothing else reads are widened.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(source))
    graph, codes = model.subgraphs[0], model.operatorCodes
    readers = Counter(int(tensor) for operator in graph.operators for tensor in operator.inputs)
    readers.update(int(tensor) for tensor in graph.outputs)
    for operator in graph.operators:
        if flatbuffer.TFL_OP_CODE_TO_NAME.get(codes[operator.opcodeIndex].builtinCode, "") not in ("ADD", "SUB"):
            continue
        whole = ranges.get(flatbuffer.get_tensor_name(graph.tensors[operator.outputs[0]]))
        for tensor in map(int, operator.inputs):
            part = ranges.get(flatbuffer.get_tensor_name(graph.tensors[tensor]))
            if whole and part and readers[tensor] == 1 and _bound(part) * LEAST_PART < _bound(whole):
                bound = np.full_like(part["max"], _bound(whole) / LEAST_PART)
                part["min"], part["max"] = np.minimum(part["min"], -bound), np.maximum(part["max"], bound)


def _bound(one: dict[str, Any]) -> float:
    """Largest magnitude in a range."""
    return max(float(np.abs(one["min"]).max()), float(np.abs(one["max"]).max()))


def _recipe(precision: str, int8_io: bool) -> Any:
    from ai_edge_quantizer import recipe

    if precision == "int8":
        in_float = () if int8_io else ("INPUT", "OUTPUT", *FLOAT_ON_CPUS)
        return recipe.static_wi8_ai8() + [_in_float(".*", op) for op in in_float] + [_in_float(f"^{ADDED}/")]
    if precision == "w8a16":
        return recipe.static_wi8_ai16() + [_in_float(".*", end) for end in (() if int8_io else ("INPUT", "OUTPUT"))]
    if precision == "int8-dynamic":
        return recipe.dynamic_wi8_afp32()
    weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
    settings = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
    return [{"regex": ".*", "operation": "*", "algorithm_key": "float_casting", "op_config": settings}]


def _kept_float(source: Path, precision: str, int8_io: bool, segments: Sequence[int]) -> list[dict[str, Any]]:
    """Return recipe entries that keep some operators in float; the quantizer identifies them by their outputs."""
    if not segments and (precision != "int8" or int8_io):
        return []
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(source))
    graph = model.subgraphs[0]
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    names = [flatbuffer.TFL_OP_CODE_TO_NAME.get(code, "") for code in codes]
    kept = set(float_positions([name in WEIGHTED for name in names], segments)) if segments else set()
    if precision == "int8" and not int8_io:
        kept |= _norms(graph, names)
    scopes = [flatbuffer.get_op_scope(graph.operators[position], graph.tensors) for position in sorted(kept)]
    return _named_in_float(scopes)


def _named_in_float(scopes: Sequence[str], end: str = "") -> list[dict[str, Any]]:
    """At most one recipe entry, of these operators: the quantizer searches every entry's pattern for every operator and
    image, and Python keeps 512 compiled patterns, so that hundreds of entries would be compiled again each time."""
    return [_in_float(f"^({'|'.join(map(re.escape, scopes))}){end}$")] if scopes else []


def _in_float(scopes: str, operation: str = "*") -> dict[str, Any]:
    """Recipe entry that leaves operators as they are; `scopes` is a pattern of the names of their outputs."""
    return {"regex": scopes, "operation": operation, "algorithm_key": "no_quantize", "op_config": {}}


def _norms(graph: Any, names: Sequence[str]) -> set[int]:
    """Return the positions of the operators of layer and group norms: int8 loses their differences from a mean.

    Searches from each square root, reciprocal or not, backwards over the variance to the normalized map, then forwards
    to the next operator that is not elementwise.
    """
    made_by = {tensor: position for position, op in enumerate(graph.operators) for tensor in op.outputs}
    takers: dict[int, list[int]] = {}
    for position, op in enumerate(graph.operators):
        for tensor in op.inputs:
            takers.setdefault(tensor, []).append(position)

    def is_square(position: int) -> bool:
        inputs = graph.operators[position].inputs
        return names[position] == "SQUARED_DIFFERENCE" or (names[position] == "MUL" and inputs[0] == inputs[1])

    def through_reshape(position: int) -> int:
        maker = made_by.get(graph.operators[position].inputs[0])
        return position if names[position] != "RESHAPE" or maker is None else maker

    def before(position: int) -> list[int]:
        inputs = [tensor for tensor in graph.operators[position].inputs if tensor in made_by]
        if names[position] in ("SUB", "SQUARED_DIFFERENCE"):  # of the map and its mean: the mean
            if len(inputs) < 2:  # of the map and zero: a square
                return []
            inputs = sorted(inputs, key=lambda tensor: int(np.prod(graph.tensors[tensor].shape)))[:1]
        makers = [made_by[tensor] for tensor in inputs]
        if names[position] == "MEAN":  # of the squares, or of the map, which is not the norm's
            return [maker for maker in makers if is_square(through_reshape(maker))]
        if names[position] == "RESHAPE" and (squares := [maker for maker in makers if is_square(maker)]):
            return squares
        wanted = MADE_BY.get(names[position], STATISTICS)
        return [maker for maker in makers if names[maker] in wanted]

    def after(position: int) -> list[int]:
        followers = [taker for tensor in graph.operators[position].outputs for taker in takers.get(tensor, [])]
        return [follower for follower in followers if names[follower] in ELEMENTWISE]

    found: set[int] = set()
    for step in (before, after):
        waiting, seen = [position for position, name in enumerate(names) if name in ROOTS], set[int]()
        while waiting:
            position = waiting.pop()
            if position not in seen:
                seen.add(position)
                waiting += step(position)
        found |= seen
    return found


def _signature(path: Path) -> tuple[str, str]:
    """Return (input name, signature key) of a file with one signature."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_path=str(path)).get_signature_list()
    key = next(iter(signatures))
    return signatures[key]["inputs"][0], key
