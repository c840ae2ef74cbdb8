"""Damaged exported files through the process they are opened in: scores or one line, and never the machine's memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import ExportError
from mobilezoo.testing.fuzzing import damages, error_line
from mobilezoo_export import FileApart
from mobilezoo_latency.emulator.probe import write_probe

SHAPE = (1, 3, 8, 8)


def onnx_file(path: Path, elements: int) -> Path:
    """The mean over rows and columns, plus the mean of so many ones that the file does not hold."""
    onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    helper, kinds = onnx.helper, onnx.TensorProto
    sizes = [("count", [elements]), ("axes", [2, 3])]
    constants = [helper.make_tensor(name, kinds.INT64, [len(value)], value) for name, value in sizes]
    one = helper.make_tensor("one", kinds.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["count"], ["ones"], value=one),
        helper.make_node("ReduceMean", ["ones"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["x", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Add", ["pooled", "mean"], ["scores"]),
    ]
    ends = [helper.make_tensor_value_info(n, kinds.FLOAT, s) for n, s in (("x", list(SHAPE)), ("scores", [1, 3]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def opened(path: Path) -> Any:
    with FileApart(path) as file:
        shape = tuple(file.artifact.input.shape)
        return file.run(np.zeros(shape if file.artifact.input.layout == "NCHW" else SHAPE, np.float32))


def test_a_small_file_cannot_ask_for_all_memory(tmp_path: Path) -> None:
    assert opened(onnx_file(tmp_path / "x.onnx", 4)).tolist() == [[1.0, 1.0, 1.0]]
    with pytest.raises(ExportError, match=r"x\.onnx"):
        opened(onnx_file(tmp_path / "x.onnx", 3 * 10**9))


@pytest.mark.parametrize(
    ("suffix", "count"),
    [
        (".onnx", 2),
        (".tflite", 2),
        *(pytest.param(suffix, 8, marks=pytest.mark.slow) for suffix in (".onnx", ".tflite")),
        pytest.param(".pte", 3, marks=pytest.mark.slow),
    ],
)
def test_damaged_files_run_or_are_one_line(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".onnx":
        onnx_file(path, 4)
    elif suffix == ".tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra 'litert'")
        write_probe(path)
    else:
        pytest.importorskip("executorch", reason="needs the extra 'executorch'")
        path.write_bytes(b"\x20\0\0\0ET12" + bytes(2000))
    for number, (_, data) in enumerate(damages({suffix: path.read_bytes()}, count)):
        path.write_bytes(data)
        line = error_line(lambda: opened(path), f"round {number} of {suffix}")
        assert not line or path.name in line
