"""LiteRT: float16 weights, dynamic-range int8, or full int8 with calibrated activations (ai-edge-quantizer)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RECIPES = ("fp16", "int8", "int8-dynamic")


def quantise(
    source: Path, target: Path, precision: str, batches_as_fed: Sequence[np.ndarray] = (), int8_io: bool = False
) -> None:
    """Write `target` from the float32 file `source`; `batches_as_fed` are in the file's own layout.

    `int8_io`: int8 files take and give int8 tensors; otherwise they convert at their borders.
    """
    from ai_edge_quantizer import quantizer

    engine = quantizer.Quantizer(str(source), _recipe(precision, int8_io))
    ranges = _ranges(source, engine, batches_as_fed) if engine.need_calibration else None
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "quantised.tflite"
        engine.quantize(ranges).export_model(made)
        made.replace(target)


def _ranges(source: Path, engine: Any, batches_as_fed: Sequence[np.ndarray]) -> Any:
    """Smallest and largest value of each tensor over all images.

    The quantiser's own default is a moving average, which forgets rare large values and clips them.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    name, key = _signature(source)
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(engine.get_quantization_recipe())
    measuring = calibrator.Calibrator(str(source), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    measuring.calibrate({key: [{name: batch} for batch in batches_as_fed]}, recipes)
    return measuring.get_model_qsvs()


def _recipe(precision: str, int8_io: bool) -> Any:
    from ai_edge_quantizer import recipe

    if precision == "int8":
        borders = [] if int8_io else ["INPUT", "OUTPUT"]
        return recipe.static_wi8_ai8() + [
            {"regex": ".*", "operation": border, "algorithm_key": "no_quantize", "op_config": {}} for border in borders
        ]
    if precision == "int8-dynamic":
        return recipe.dynamic_wi8_afp32()
    weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
    settings = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
    return [{"regex": ".*", "operation": "*", "algorithm_key": "float_casting", "op_config": settings}]


def _signature(path: Path) -> tuple[str, str]:
    """(input name, signature key) of a file with one signature."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_path=str(path)).get_signature_list()
    key = next(iter(signatures))
    return signatures[key]["inputs"][0], key
