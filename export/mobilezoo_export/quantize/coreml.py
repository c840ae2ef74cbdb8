"""Core ML: int8 weights per channel, palettes of 4 and 6 bits, and int8 activations with int8 weights (W8A8)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mobilezoo_export.quantize.mixed import float_positions

WEIGHTED = ("conv", "conv_transpose", "linear", "matmul")


def compress(model: Any, precision: str, batches: Sequence[np.ndarray] = (), float_segments: Sequence[int] = ()) -> Any:
    """Compress the weights of an ML Program; activations stay float16, except with `w8a8` (int8).

    Args:
        model: coremltools MLModel.
        precision: int8, pal4, pal6 or w8a8.
        batches: float32 NCHW calibration batches, for `w8a8`.
        float_segments: segments whose weights and activations are not quantized, see `quantize.mixed`.

    Returns:
        The compressed MLModel.
    """
    import coremltools.optimize.coreml as cto

    if precision in ("pal4", "pal6"):
        palette = cto.OpPalettizerConfig(mode="kmeans", nbits=int(precision[-1]))
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=palette))
    if precision == "w8a8":
        model = _quantize_activations(model, batches, float_segments)
    linear = cto.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_channel")
    config = cto.OptimizationConfig(global_config=linear, op_name_configs=_kept_float(model, float_segments))
    return cto.linear_quantize_weights(model, config)


def _kept_float(model: Any, segments: Sequence[int]) -> dict[str, None]:
    """Return the operators that are not compressed, by name."""
    operations = [item for item in model._mil_program.functions["main"].operations if item.op_type != "const"]
    kept = float_positions([item.op_type in WEIGHTED for item in operations], segments)
    return {operations[position].name: None for position in sorted(kept)}


def _quantize_activations(model: Any, batches: Sequence[np.ndarray], float_segments: Sequence[int]) -> Any:
    import coremltools.optimize.coreml as cto

    linear = cto.experimental.OpActivationLinearQuantizerConfig(mode="linear_symmetric")
    config = cto.OptimizationConfig(global_config=linear, op_name_configs=_kept_float(model, float_segments))
    with _our_ranges(activation_ranges(model, batches)):
        return cto.experimental.linear_quantize_activations(model, config, sample_data=[{}])


def activation_ranges(model: Any, batches: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Measure the range of every value with the program check.

    Inputs and output of a concatenation share one range, so that it needs no requantization.

    Args:
        model: coremltools MLModel.
        batches: float32 NCHW calibration batches.

    Returns:
        {value name: {"rmin": smallest, "rmax": largest}} over all batches.
    """
    from mobilezoo_export.mil.program import Program

    program = Program(model)
    ranges: dict[str, dict[str, float]] = {}

    def observe(_: Any, name: str, value: torch.Tensor) -> None:
        if not value.is_floating_point():
            return
        low, high = float(value.min()), float(value.max())
        known = ranges.setdefault(name, {"rmin": low, "rmax": high})
        known["rmin"], known["rmax"] = min(low, known["rmin"]), max(high, known["rmax"])

    for batch in batches:
        program.run(batch, observe)
    for item in program.operations():
        if item.op_type == "concat":
            names = [variable.name for variable in (*item.inputs["values"], *item.outputs) if variable.name in ranges]
            low = min(ranges[name]["rmin"] for name in names)
            high = max(ranges[name]["rmax"] for name in names)
            for name in names:
                ranges[name].update(rmin=low, rmax=high)
    return ranges


@contextmanager
def _our_ranges(ranges: dict[str, dict[str, float]]) -> Iterator[None]:
    """Pass measured ranges to coremltools, which uses `predict`: macOS only, and 9.0 keeps the last sample's ranges."""
    from coremltools.optimize.coreml import _post_training_quantization as module

    original = module._get_activation_calibration_stats
    module._get_activation_calibration_stats = lambda *_args, **_kwargs: ranges
    try:
        yield
    finally:
        module._get_activation_calibration_stats = original
