"""What `mobilezoo kit` makes of inputs and outputs of other types and numbers than one image in, scores out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.model_options import ModelOptions

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("read_inline")
FLOAT, HALF, LONG = 1, 10, 7
OPTIONS = ModelOptions(preprocess="unit", labels=("a", "b", "c"))


def foreign(path: Path, nodes: list[Any], outputs: dict[str, tuple[int, list[int]]], inputs: tuple[str, ...]) -> Path:
    """A file of others: scores `s` of three classes of an image `x`, and what `nodes` make of them."""
    scores = [
        onnx.helper.make_node("Flatten", ["x"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "w"], ["s"]),
    ]
    weights = np.random.default_rng(0).standard_normal((3 * 8 * 8, 3)).astype(np.float32)
    given = [onnx.helper.make_tensor_value_info(name, FLOAT, [1, 3, 8, 8]) for name in inputs]
    answers = [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()]
    graph = onnx.helper.make_graph(scores + nodes, "g", given, answers, [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def halves(path: Path) -> Path:
    node = onnx.helper.make_node("Cast", ["s"], ["y"], to=HALF)
    return foreign(path, [node], {"y": (HALF, [1, 3])}, ("x",))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("cpp", "half", r"answers in float16, and a cpp kit reads only float32, uint8, int8: make .*--for python$"),
        ("cpp", "argmax", r"gives y \(int64 1\): that is no score per class; make one that gives"),
        (
            "python",
            "argmax",
            r"gives y \(int64 1\): that is no score per class; make one that gives",
        ),
        ("cpp", "long", r"gives y \(int64 1×3\): that is no score per class"),
        ("cpp", "two outputs", r"more than one output may hold the scores, s \(.*\), y \(.*\): pass --labels"),
        ("cpp", "two inputs", r"takes no single image \(input"),
    ],
)
def test_what_a_kit_cannot_read_is_one_line(kind: str, name: str, message: str, tmp_path: Path) -> None:
    path, one = tmp_path / "a.onnx", onnx.helper.make_node
    if name == "half":
        halves(path)
    elif name == "argmax":
        foreign(path, [one("ArgMax", ["s"], ["y"], axis=1, keepdims=0)], {"y": (LONG, [1])}, ("x",))
    elif name == "long":
        foreign(path, [one("Cast", ["s"], ["y"], to=LONG)], {"y": (LONG, [1, 3])}, ("x",))
    elif name == "two outputs":
        foreign(path, [one("Neg", ["s"], ["y"])], {"s": (FLOAT, [1, 3]), "y": (FLOAT, [1, 3])}, ("x",))
    else:
        foreign(path, [one("ReduceSum", ["z"], ["t"])], {"s": (FLOAT, [1, 3])}, ("x", "z"))
    with pytest.raises(MobilezooError, match=message) as error:
        write_kit(path, kind, tmp_path / "kit", OPTIONS)
    assert "\n" not in str(error.value)
    assert "a.onnx" in str(error.value)
    assert not (tmp_path / "kit").exists()


def test_a_python_kit_reads_half_precision(tmp_path: Path) -> None:
    made = write_kit(halves(tmp_path / "a.onnx"), "python", tmp_path / "kit", OPTIONS)
    assert "classify.py" in made.files
