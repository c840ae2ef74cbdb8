"""Small files with records that answer with boxes and with masks."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from mobilezoo.artifacts import BoxThresholds, Preprocessing
from mobilezoo.dense.networks import Detector, Segmenter
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportSpec
from mobilezoo_export.records import ExportOptions
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


def litert_file(folder: Path, task: Literal["detect", "segment"], precision: str) -> Path:
    """A network of ours with random weights that finds many things, as a LiteRT file with its record."""
    torch.manual_seed(0)
    network: torch.nn.Module = Segmenter("mnasnet_small", CLASSES, channels=16)
    if task == "detect":
        network = Detector("mnasnet_small", CLASSES, 64, channels=16)
        with torch.no_grad():
            for layer in (network.classes[-1], network.sides[-1]):
                layer.weight *= 40  # as trained ones: the answers differ from place to place
    spec = ExportSpec(
        model=task,
        resolution=(64, 64),
        preprocessing=BORDER,
        labels=LABELS,
        task=task,
        boxes=BoxThresholds(score=0.3) if task == "detect" else None,
        options=ExportOptions(int8_io=precision == "int8"),
    )
    images = [np.random.default_rng(1).standard_normal((16, 3, 64, 64)).astype(np.float32)]
    (result,) = export_files(network.eval(), spec, ["litert"], [precision], folder, calibration=images)
    assert result.path is not None, result.reason
    return Path(result.path)
