"""Tiny artefacts with their records, built without a converter so that tests stay fast."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, save_record, sha256_of, size_of

SIDE, CHANNELS = 16, 4


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
        not_run="a test file",
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
    """One fully connected layer over NHWC pixels, written through LiteRT's own schema."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")

    def tensor(name: str, shape: list[int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        return made

    def buffer(data: bytes) -> Any:
        made = schema.BufferT()
        made.data = np.frombuffer(data, dtype=np.uint8) if data else None
        return made

    weights = np.random.default_rng(0).standard_normal((8, CHANNELS), dtype=np.float32)
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, [0, 1, 2], [3]
    op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    op.builtinOptions = schema.FullyConnectedOptionsT()
    op.builtinOptions.keepNumDims = True
    graph = schema.SubGraphT()
    shape = [1, SIDE, SIDE, CHANNELS]
    graph.tensors = [
        tensor("x", shape, 0),
        tensor("w", [8, CHANNELS], 1),
        tensor("b", [8], 2),
        tensor("y", [1, SIDE, SIDE, 8], 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [op]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(b""), buffer(weights.tobytes()), buffer(np.zeros(8, np.float32).tobytes())]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return write_record(path, "litert", tuple(shape), "NHWC")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_onnx(tmp_path_factory.mktemp("onnx") / "tiny.fp32.onnx")


@pytest.fixture(scope="session")
def bigger_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_onnx(tmp_path_factory.mktemp("onnx") / "bigger.fp32.onnx", repeats=20)


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tflite(tmp_path_factory.mktemp("litert") / "tiny.fp32.tflite")
