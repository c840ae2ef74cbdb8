"""LiteRT files taken apart: state, graphs that operators call, folded constants, shapes that only a run tells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import DeviceError, MobilezooError
from mobilezoo_export.records import OperatorProfile
from mobilezoo_export.registry import load_exporter
from mobilezoo_latency import Store, profile, summarize
from mobilezoo_latency.emulator.layout import find_emulator, home
from mobilezoo_latency.emulator.setup import sources_sha256
from mobilezoo_latency.operators import profile_operators

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
Op = schema.BuiltinOperator
FLOAT, INT, HALF = schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.FLOAT16
TYPES = {"float32": FLOAT, "int32": INT, "float16": HALF}


def time_operators(path: Path) -> OperatorProfile:
    return load_exporter("litert").profile_operators(path, threads=1)


class GraphFile:
    """A .tflite written without a converter; the first graph is the main one."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.buffers = 3, [schema.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], []

    def graph(self) -> Any:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
        self.model.subgraphs.append(graph)
        return graph

    def tensor(self, graph: Any, shape: list[int], value: np.ndarray | None = None, kind: int = FLOAT) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{len(graph.tensors)}", shape, 0
        tensor.type = kind if value is None else TYPES[value.dtype.name]
        if value is not None:
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(value.tobytes(), np.uint8)
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def add(self, graph: Any, code: int, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        kind, operator = schema.OperatorCodeT(), schema.OperatorT()
        kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), 1
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes), inputs, outputs
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, name), options
        self.model.operatorCodes.append(kind)
        graph.operators.append(operator)

    def save(self, path: Path) -> Path:
        import flatbuffers

        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def tokens_file(path: Path) -> Path:
    """Rows of a table of three by seven tokens, and a second input that is added."""
    file = GraphFile()
    graph = file.graph()
    tokens, more = file.tensor(graph, [1, 7], kind=INT), file.tensor(graph, [1, 7, 5])
    table = file.tensor(graph, [3, 5], np.arange(15, dtype=np.float32).reshape(3, 5))
    rows, total = file.tensor(graph, [1, 7, 5]), file.tensor(graph, [1, 7, 5])
    file.add(graph, Op.GATHER, [table, tokens], [rows], schema.GatherOptionsT())
    file.add(graph, Op.ADD, [rows, more], [total], schema.AddOptionsT())
    graph.inputs, graph.outputs = [tokens, more], [total]
    return file.save(path)


def kinds(path: Path) -> list[str]:
    found = time_operators(path)
    assert found.left_out == ()
    return [op.type for op in found.operators]


def lstm_file(path: Path) -> Path:
    """5 steps of 3 numbers through 4 cells, whose state the file keeps."""
    file = GraphFile()
    graph, rng = file.graph(), np.random.default_rng(0)
    given = file.tensor(graph, [1, 5, 3])
    weights = [file.tensor(graph, [4, n], rng.random((4, n), np.float32)) for n in (3, 3, 3, 3, 4, 4, 4, 4)]
    biases = [file.tensor(graph, [4], np.zeros(4, np.float32)) for _ in range(4)]
    states = [file.tensor(graph, [1, 4]) for _ in range(2)]
    for state in states:
        graph.tensors[state].isVariable = True
    answer = file.tensor(graph, [1, 5, 4])
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    inputs = [given, *weights, -1, -1, -1, *biases, -1, -1, *states]
    file.add(graph, Op.UNIDIRECTIONAL_SEQUENCE_LSTM, inputs, [answer], options)
    graph.inputs, graph.outputs = [given], [answer]
    return file.save(path)


def while_file(path: Path) -> Path:
    """x is doubled three times in a loop that counts, then once more: the loop's graphs are those of the file."""
    file = GraphFile()
    main, condition, body = file.graph(), file.graph(), file.graph()
    start, x = file.tensor(main, [], np.array(0, np.int32)), file.tensor(main, [1, 6])
    count, y, z = file.tensor(main, [], kind=INT), file.tensor(main, [1, 6]), file.tensor(main, [1, 6])
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex, loop.bodySubgraphIndex = 1, 2
    file.add(main, Op.WHILE, [start, x], [count, y], loop)
    file.add(main, Op.ADD, [y, y], [z], schema.AddOptionsT())
    main.inputs, main.outputs = [x], [z]
    i, _ = file.tensor(condition, [], kind=INT), file.tensor(condition, [1, 6])
    limit = file.tensor(condition, [], np.array(3, np.int32))
    goes_on = file.tensor(condition, [], kind=schema.TensorType.BOOL)
    file.add(condition, Op.LESS, [i, limit], [goes_on], schema.LessOptionsT())
    condition.inputs, condition.outputs = [0, 1], [goes_on]
    i, x, one = file.tensor(body, [], kind=INT), file.tensor(body, [1, 6]), file.tensor(body, [], np.array(1, np.int32))
    next_i, doubled = file.tensor(body, [], kind=INT), file.tensor(body, [1, 6])
    file.add(body, Op.ADD, [i, one], [next_i], schema.AddOptionsT())
    file.add(body, Op.ADD, [x, x], [doubled], schema.AddOptionsT())
    body.inputs, body.outputs = [i, x], [next_i, doubled]
    return file.save(path)


def half_weights_file(path: Path) -> Path:
    """A dense layer over weights that are stored as float16, and a second input that is added."""
    file = GraphFile()
    graph = file.graph()
    x, more = file.tensor(graph, [1, 8]), file.tensor(graph, [1, 4])
    stored = file.tensor(graph, [4, 8], np.random.default_rng(0).random((4, 8)).astype(np.float16))
    weights, dense, total = file.tensor(graph, [4, 8]), file.tensor(graph, [1, 4]), file.tensor(graph, [1, 4])
    file.add(graph, Op.DEQUANTIZE, [stored], [weights], schema.DequantizeOptionsT())
    file.add(graph, Op.FULLY_CONNECTED, [x, weights, -1], [dense], schema.FullyConnectedOptionsT())
    file.add(graph, Op.ADD, [dense, more], [total], schema.AddOptionsT())
    graph.inputs, graph.outputs = [x, more], [total]
    return file.save(path)


def test_operators_with_a_state_are_timed(tmp_path):
    assert kinds(lstm_file(tmp_path / "lstm.tflite")) == ["UNIDIRECTIONAL_SEQUENCE_LSTM"]


def test_a_loop_is_timed_with_the_graphs_it_calls_and_as_often_as_the_file_loops(tmp_path):
    assert kinds(while_file(tmp_path / "while.tflite")) == ["WHILE", "ADD"]


def test_weights_computed_from_constants_are_constants_and_every_input_is_fed(tmp_path):
    assert kinds(half_weights_file(tmp_path / "half.tflite")) == ["FULLY_CONNECTED", "ADD"]


def test_each_operator_gets_what_the_one_before_it_gave(tmp_path):
    """An index into a table of two: noise of a type's whole range would lie outside of it."""
    file = GraphFile()
    graph = file.graph()
    x, table = file.tensor(graph, [1, 3]), file.tensor(graph, [3, 5], np.ones((3, 5), np.float32))
    axis = file.tensor(graph, [], np.array(1, np.int32))
    where, row = file.tensor(graph, [1], kind=INT), file.tensor(graph, [1, 5])
    options = schema.ArgMaxOptionsT()
    options.outputType = INT
    file.add(graph, Op.ARG_MAX, [x, axis], [where], options)
    file.add(graph, Op.GATHER, [table, where], [row], schema.GatherOptionsT())
    graph.inputs, graph.outputs = [x], [row]
    found = time_operators(file.save(tmp_path / "index.tflite"))
    assert [(op.type, op.shape) for op in found.operators] == [("ARG_MAX", "1"), ("GATHER", "1×5")]


def test_tokens_and_a_second_input_are_fed_in_their_own_types(tmp_path):
    assert kinds(tokens_file(tmp_path / "tokens.tflite")) == ["GATHER", "ADD"]


def test_open_batches_are_taken_apart_in_the_size_that_is_fed(tmp_path):
    file = GraphFile()
    graph = file.graph()
    x, y = file.tensor(graph, [1, 4, 4, 3]), file.tensor(graph, [1, 4, 4, 3])
    for tensor in graph.tensors:
        tensor.shapeSignature = [-1, 4, 4, 3]
    file.add(graph, Op.ADD, [x, x], [y], schema.AddOptionsT())
    graph.inputs, graph.outputs = [x], [y]
    (only,) = time_operators(file.save(tmp_path / "open.tflite")).operators
    assert only.shape == "1×4×4×3"


def test_what_cannot_run_alone_is_named_and_the_rest_is_timed(tmp_path, monkeypatch):
    from mobilezoo_export.profilers import litert

    run = litert._Parts.run

    def broken(self, operator, threads):
        if self.kind(operator) == "FULLY_CONNECTED":
            raise RuntimeError("no kernel\nfor this")
        return run(self, operator, threads)

    monkeypatch.setattr(litert._Parts, "run", broken)
    found = time_operators(half_weights_file(tmp_path / "half.tflite"))
    assert [op.type for op in found.operators] == ["ADD"]
    assert found.left_out == ("#1 FULLY_CONNECTED: no kernel",)


def test_a_runtime_that_crashes_over_a_part_is_one_line(tmp_path):
    import sys

    crash = [sys.executable, "-c", "import os, sys; sys.stdin.readline(); os.abort()"]
    with pytest.raises(DeviceError, match=r"half\.tflite: the runtime ended with SIGABRT"):
        profile_operators(half_weights_file(tmp_path / "half.tflite"), command=crash)


def test_a_file_of_others_is_said_to_be_unproven_and_a_custom_operator_is_one_line(tmp_path, shared):
    assert profile_operators(half_weights_file(tmp_path / "half.tflite")).unproven == "not proven here"
    with pytest.raises(MobilezooError, match="custom op: fake-op-double") as error:
        profile_operators(shared / "foreign" / "tflite" / "coral_invalid_model_invoking_error.tflite")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("coral_keras_lstm_mnist_ptq", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ("mediapipe_selfie_segmentation", "CONV_2D"),
    ],
)
def test_real_files_of_others_are_taken_apart(name, most, shared):
    found = kinds(shared / "foreign" / "tflite" / f"{name}.tflite")
    assert most in found
    assert "DEQUANTIZE" not in found


def test_tokens_and_several_inputs_are_counted_on_an_emulated_core(tmp_path):
    """As an index, the bytes of a float would lie outside of every table."""
    if not (home() / "installed.json").is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    if find_emulator().installed.sources_sha256 != sources_sha256():
        pytest.skip("the emulator's runner is of other sources: run `mobilezoo device setup emulator`")
    report = profile(tokens_file(tmp_path / "tokens.tflite"), "cortex_a76", store=Store(tmp_path / "latency.db"))
    assert report.counts is not None
    assert report.counts.instructions > 0
    assert report.unproven == "not proven here"
    assert set(summarize(report)) == {"median_ms", "ci_low_ms", "ci_high_ms"}
