"""Small files with records that answer with boxes and with masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import BoxThresholds, Preprocessing
from tests.mobilezoo.workflows.test_try_file import recorded

onnx = pytest.importorskip("onnx")
SIDE, PLACES, CLASSES = 16, 12, 3
LABELS = ("sky", "a 猫", "{{c}}")
BORDER = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.5,) * 3, interpolation="bilinear", crop_mode="border", crop_pct=1.0)


def detector(path: Path, **changes: Any) -> Path:
    """Boxes that depend on the image a little, with probabilities that depend on it a lot."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3 * SIDE * SIDE, PLACES, 4 + CLASSES)).astype(np.float32) * 0.05
    weights[..., 4:] *= 3
    bias = np.tile(np.array([-1.5, -1.5, 1, 1, 0, 0, 0], np.float32), (PLACES, 1))
    bias[:, :4] += rng.standard_normal((PLACES, 4)).astype(np.float32) * 0.4
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "w", "b"], ["g"]),
        onnx.helper.make_node("Sigmoid", ["g"], ["s"]),
        onnx.helper.make_node("Reshape", ["s", "shape"], ["y"]),
    ]
    shape = [1, PLACES, 4 + CLASSES]
    held = {"w": weights.reshape(3 * SIDE * SIDE, -1), "b": bias.reshape(-1), "shape": np.array(shape, np.int64)}
    _save(path, nodes, shape, held)
    fields = {
        "task": "detect",
        "boxes": BoxThresholds(score=0.6),
        "output_shape": tuple(shape[1:]),
        "output": "sigmoid",
    }
    return recorded(path, "onnx", **{"preprocessing": BORDER, "labels": LABELS, **fields, **changes})


def segmenter(path: Path, **changes: Any) -> Path:
    """The class of a pixel by its color."""
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)[..., None, None]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx.helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    _save(path, nodes, [1, SIDE, SIDE, CLASSES], {"w": weights})
    fields = {"task": "segment", "output_shape": (SIDE, SIDE, CLASSES)}
    return recorded(path, "onnx", **{"preprocessing": BORDER, "labels": LABELS, **fields, **changes})


def _save(path: Path, nodes: list[Any], shape: list[int], held: dict[str, np.ndarray]) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in (("x", [1, 3, SIDE, SIDE]), ("y", shape))
    ]
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in held.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
