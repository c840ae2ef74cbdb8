"""Operators of LiteRT files: respelled, they compute the same, and every unit of a phone takes them."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec
from mobilezoo.errors import DeviceError, MissingToolError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.check_units import check_file
from mobilezoo_export.anatomy.findings import find
from mobilezoo_export.anatomy.litert import read_graph
from mobilezoo_export.litert_spelling import respell
from mobilezoo_export.registry import start_runner
from mobilezoo_latency.registry import load_device

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

Shape = tuple[int, ...]
SIDE, CHANNELS = 16, 4
IMAGES = np.random.default_rng(0).standard_normal((2, CHANNELS, SIDE, SIDE), dtype=np.float32)
WHOLE, PART = (4, 16, 16), (1, 16, 16)
"""Of the image: all of its values, and a quarter."""
SHARED = [
    (WHOLE, PART, False),
    (WHOLE, PART, True),
    ((1, 4, 16, 16), PART, False),
    ((1, 64, 16), (1, 4, 16, 4), False),
    (PART, WHOLE, True),
    ((1, 1, 16, 16), (1, 4, 16, 16), False),
    ((2, 1, 16, 8), (2, 2, 8, 32), False),
]
"""(left, right, whether the right side is turned), with fewer matrices on one side."""
EVEN = [(WHOLE, WHOLE, False), (PART, (1, 16, 64), False), ((4, 16, 16), (1, 4, 16, 16), True)]


class Writer:
    """A file of one product whose sides are read from one image, or given."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.operatorCodes, self.model.buffers = 3, [], [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.image = self.tensor((1, SIDE, SIDE, CHANNELS))

    def tensor(self, shape: Shape, values: np.ndarray | None = None) -> int:
        made, buffer = schema.TensorT(), schema.BufferT()
        made.name, made.shape = f"tensor{len(self.graph.tensors)}", list(shape)
        made.type = getattr(schema.TensorType, values.dtype.name.upper()) if values is not None else 0
        if values is not None:
            buffer.data = list(values.tobytes())
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], shape: Shape, options: Any = None) -> int:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        self.model.operatorCodes.append(code)
        made.opcodeIndex, made.inputs = len(self.model.operatorCodes) - 1, inputs
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            made.builtinOptions, made.builtinOptionsType = options, getattr(schema.BuiltinOptions, kind)
        made.outputs = [self.tensor(shape)]
        self.graph.operators.append(made)
        return int(made.outputs[0])

    def reshape(self, source: int, shape: Shape) -> int:
        return self.operator("RESHAPE", [source, self.vector(shape)], shape, schema.ReshapeOptionsT())

    def vector(self, values: Shape) -> int:
        return self.tensor((len(values),), np.array(values, np.int32))

    def from_image(self, shape: Shape) -> int:
        """A tensor of the image's first values."""
        channels = prod(shape) // SIDE**2
        begin, size = self.vector((0, 0, 0, 0)), self.vector((1, SIDE, SIDE, channels))
        part = (1, SIDE, SIDE, channels)
        return self.reshape(self.operator("SLICE", [self.image, begin, size], part, schema.SliceOptionsT()), shape)

    def write(self, path: Path, left: int, right: int, shape: Shape, turned: bool) -> Path:
        options = schema.BatchMatMulOptionsT()
        options.adjY = turned
        product = self.operator("BATCH_MATMUL", [left, right], shape, options)
        return self.finish(path, self.reshape(product, (1, prod(shape))))

    def finish(self, path: Path, output: int) -> Path:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = [self.image], [output]
        self.model.subgraphs = [self.graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def product_file(path: Path, left: Shape, right: Shape, turned: bool) -> Path:
    writer, columns = Writer(), right[-2 if turned else -1]
    shape = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], columns)
    return writer.write(path, writer.from_image(left), writer.from_image(right), shape, turned)


def constant_file(path: Path, left: Shape, right: Shape) -> Path:
    writer = Writer()
    values = np.random.default_rng(1).standard_normal(left, dtype=np.float32)
    shape = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    return writer.write(path, writer.tensor(left, values), writer.from_image(right), shape, turned=False)


def record_of(path: Path) -> Artifact:
    shape = InputSpec(shape=(1, SIDE, SIDE, CHANNELS), layout="NHWC")
    return Artifact(
        path=path.name,
        target="litert",
        precision="fp32",
        model="product",
        input=shape,
        sha256="0" * 64,
        size_bytes=path.stat().st_size,
        preprocessing=Preprocessing(mean=(0.0,) * CHANNELS, std=(1.0,) * CHANNELS),
        parity=None,
        tools={},
    )


def answers(path: Path) -> np.ndarray:
    made: np.ndarray = start_runner(path, record_of(path)).run(IMAGES)
    return made


def kinds(path: Path) -> list[str]:
    return [finding.kind for finding in find(read_graph(path))]


@pytest.mark.parametrize(("left", "right", "turned"), SHARED)
def test_matrices_are_no_longer_shared(left: Shape, right: Shape, turned: bool, tmp_path: Path) -> None:
    path = product_file(tmp_path / "product.tflite", left, right, turned)
    before = answers(path)
    assert "gpu-fault" in kinds(path)
    assert respell(path) == 1
    np.testing.assert_array_equal(answers(path), before)
    assert "gpu-fault" not in kinds(path)
    assert respell(path) == 0


@pytest.mark.parametrize(("left", "right", "turned"), EVEN)
def test_other_products_stay(left: Shape, right: Shape, turned: bool, tmp_path: Path) -> None:
    path = product_file(tmp_path / "product.tflite", left, right, turned)
    before = path.read_bytes()
    assert respell(path) == 0
    assert path.read_bytes() == before
    assert "gpu-fault" not in kinds(path)


@pytest.mark.parametrize(("left", "right"), [((1, 8, 16), (1, 16, 64)), ((1, 8, 16), WHOLE), ((4, 8, 16), WHOLE)])
def test_constants_on_the_left_are_computed(left: Shape, right: Shape, tmp_path: Path) -> None:
    path = constant_file(tmp_path / "product.tflite", left, right)
    before = answers(path)
    assert "constant-left" in kinds(path)
    assert respell(path) == 1
    np.testing.assert_array_equal(answers(path), before)
    assert not {"constant-left", "gpu-fault", "constant"} & set(kinds(path))


@pytest.mark.parametrize("half", [False, True])
def test_constants_on_the_right_are_computed_in_half_precision(half: bool, tmp_path: Path) -> None:
    writer = Writer()
    values = np.random.default_rng(1).standard_normal((4, 16, 8), dtype=np.float32)
    left, right = writer.from_image(WHOLE), writer.tensor(values.shape, values)
    path = writer.write(tmp_path / "product.tflite", left, right, (4, 16, 8), turned=False)
    before = answers(path)
    assert respell(path, half) == int(half)
    np.testing.assert_allclose(answers(path), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_the_mean_of_a_square_is_of_a_difference_in_half_precision(half: bool, tmp_path: Path) -> None:
    writer = Writer()
    square = writer.operator("MUL", [writer.image, writer.image], (1, SIDE, SIDE, CHANNELS), schema.MulOptionsT())
    options = schema.ReducerOptionsT()
    options.keepDims = True
    mean = writer.operator("MEAN", [square, writer.vector((3,))], (1, SIDE, SIDE, 1), options)
    other = writer.operator("MUL", [mean, mean], (1, SIDE, SIDE, 1), schema.MulOptionsT())
    path = writer.finish(tmp_path / "square.tflite", writer.reshape(other, (1, SIDE**2)))
    before = answers(path)
    assert respell(path, half) == int(half)
    np.testing.assert_array_equal(answers(path), before)
    kept = [node.op for node in read_graph(path).nodes]
    assert (kept.count("SQUARED_DIFFERENCE"), kept.count("MUL")) == ((1, 1) if half else (0, 2))


@pytest.mark.parametrize("number", [np.inf, -np.inf, -3.0, 0.0])
def test_the_zero_is_zero_whatever_the_input(number: float, tmp_path: Path) -> None:
    path = constant_file(tmp_path / "product.tflite", (1, 8, 16), (1, 16, 16))
    images = IMAGES.copy()
    images[:, 0, 0, 0] = number
    before = start_runner(path, record_of(path)).run(images)
    respell(path)
    np.testing.assert_array_equal(start_runner(path, record_of(path)).run(images), before)


@pytest.mark.slow
def test_the_gpu_computes_them_rightly_and_their_former_spelling_wrongly(tmp_path: Path) -> None:
    try:
        load_device("gpu_check").check()
    except (DeviceError, MissingToolError) as error:
        pytest.skip(str(error))
    files = [product_file(tmp_path / f"{i}.tflite", *shapes) for i, shapes in enumerate(SHARED)]
    files.append(constant_file(tmp_path / "constant.tflite", (1, 8, 16), WHOLE))
    for path in files:
        reference = answers(path)
        before = check_file(path, record_of(path), "gpu", IMAGES, reference)
        assert before.status == "failed" or before.outside == {"BATCH_MATMUL": 1}, path.name
        respell(path)
        after = check_file(path, record_of(path), "gpu", IMAGES, reference)
        assert (after.status, after.outside) == ("passed", {}), f"{path.name}: {after.reason}"
