"""Tiny artifacts with their records, built without a converter so that tests stay fast."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, save_record
from mobilezoo.files import sha256_of, size_of
from mobilezoo_latency.emulator.probe import IN_CHANNELS, SIDE, write_probe

CHANNELS = IN_CHANNELS


def write_record(path: Path, target: str, shape: tuple[int, ...], layout: Any = "NCHW", **changes: Any) -> Path:
    """Save an Artifact record beside `path`."""
    record = Artifact(
        path=path.name,
        target=target,
        precision="fp32",
        model="tiny",
        input=InputSpec(shape=shape, layout=layout),
        preprocessing=Preprocessing(mean=(0.0,) * CHANNELS, std=(1.0,) * CHANNELS),
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        parity=None,
        why_not_runnable="a test file",
        tools={},
        **changes,
    )
    save_record(path, record)
    return path


def build_onnx(path: Path, repeats: int = 1) -> Path:
    """`repeats` 3x3 convolutions."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((CHANNELS, CHANNELS, 3, 3), dtype=np.float32), f"w{i}")
        for i in range(repeats)
    ]
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        for i in range(repeats)
    ]
    shape = [1, CHANNELS, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x0", f"x{repeats}")]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return write_record(path, "onnx", tuple(shape))


def build_tflite(path: Path) -> Path:
    """One fully connected layer over NHWC pixels."""
    pytest.importorskip("ai_edge_litert")
    return write_record(write_probe(path), "litert", (1, SIDE, SIDE, IN_CHANNELS), "NHWC")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_onnx(tmp_path_factory.mktemp("onnx") / "tiny.fp32.onnx")


@pytest.fixture(scope="session")
def bigger_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_onnx(tmp_path_factory.mktemp("onnx") / "bigger.fp32.onnx", repeats=20)


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tflite(tmp_path_factory.mktemp("litert") / "tiny.fp32.tflite")


@pytest.fixture
def record_beside() -> Any:
    """`write_record`, for tests that make artifacts of other targets."""
    return write_record
