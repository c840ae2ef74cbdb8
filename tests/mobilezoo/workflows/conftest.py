"""A file of others, small enough to read and run in the test's own process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo_export import apart


class Inline:
    """A worker's side of the reader in this process: these files end none."""

    def __init__(self, *_: object) -> None:
        self._loaded = apart._Loaded()

    def call(self, request: dict[str, Any], *_: object) -> dict[str, Any]:
        try:
            return self._loaded.answer(request)
        except MobilezooError as error:
            return {"error": str(error)}

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def read_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read and run in this process."""
    monkeypatch.setattr(apart, "Worker", Inline)


@pytest.fixture
def small_onnx() -> Callable[..., Path]:
    """Writes the file, see `onnx_file`."""
    return onnx_file


def onnx_file(path: Path, *, sizes: tuple[int | str, ...] = (1, 3, 16, 16)) -> Path:
    """A convolution, two transposes that undo each other, and the means over rows and columns."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["c", "axes"], ["y"], keepdims=0),
    ]
    held = [
        numpy_helper.from_array(np.random.default_rng(0).standard_normal((5, 3, 1, 1), dtype=np.float32), "w"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [sizes[0], 5]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
