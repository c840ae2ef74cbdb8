"""Answers of int8 ONNX files on processors whose integer sums saturate are those of every other processor."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportSpec, load_runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.registry import start_runner
from mobilezoo_export.targets import onnx as target

onnx = pytest.importorskip("onnx")
helper, TYPES = onnx.helper, onnx.TensorProto
SCALE = np.float32(1 / 64)


def saturating(path: Path) -> np.ndarray:
    """A quantized product of [1, 64] and [64, 8] whose sums of two exceed 16 bits, and its right answer."""
    held = {
        "flat": np.array([1, 64], np.int64),
        "w": np.full((64, 8), 127, np.int8),
        "s": np.array(SCALE),
        "t": np.array(np.float32(8)),
        "z": np.array(0, np.uint8),
        "y0": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "y0"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "t", "z"], ["n"]),
        helper.make_node("DequantizeLinear", ["n", "t", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TYPES.FLOAT, s) for n, s in (("x", [1, 1, 8, 8]), ("y", [1, 8]))]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return np.full((1, 8), 64 * 255 * 127 * float(SCALE) ** 2)  # 506; with sums cut at 16 bits 256


@pytest.mark.parametrize("cut", [False, True])
def test_a_product_that_saturates_on_some_processors_is_right(
    cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cut:
        monkeypatch.setattr(target, "saturates", lambda: True)
    expected = saturating(tmp_path / "a.onnx")
    runner = load_runner(tmp_path / "a.onnx")
    np.testing.assert_allclose(runner.run(np.full((1, 1, 8, 8), 4.0, np.float32)), expected, atol=8)
    assert ("integer sums saturate here" in runner.runtime) is (cut or target.saturates())
    assert "saturate" not in start_runner(tmp_path / "a.onnx", None).runtime, "times are those of the real kernels"


def test_a_float_file_is_run_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "saturates", lambda: True)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        *([helper.make_tensor_value_info(name, TYPES.FLOAT, [1, 3, 8, 8])] for name in "xy"),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    assert load_runner(tmp_path / "a.onnx").runtime.endswith("(CPU)")


def test_an_exported_file_answers_the_same_either_way(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sample_images(tiny_spec)
    (result,) = export_files(tiny, tiny_spec, ["onnx"], ["int8"], tmp_path, calibration=[images])
    assert result.path is not None, result.reason
    if target.saturates():
        pytest.skip("integer sums of this processor saturate: there is nothing right to compare with")
    integer = load_runner(result.path).run(images)
    monkeypatch.setattr(target, "saturates", lambda: True)
    runner = load_runner(result.path)
    assert "int8 computed in float32" in runner.runtime
    # a sum that lies half-way between two steps may be rounded to either
    np.testing.assert_allclose(runner.run(images), integer, atol=0.1 * float(integer.std()))
