"""Per-operator times of LiteRT files: every operator of the main graph, timed in a file of its own.

The operators run in the file's order, each on the outputs of those before it, so that open shapes, indices and loop
counts are those of the whole network. State (LSTM) starts at zero; values computed from constants alone (fp16 weights
behind a DEQUANTIZE) become constants of the operators that read them, as in XNNPACK. Subgraphs that an operator calls
(IF, WHILE, CALL) are copied with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import MobilezooError, first_line
from mobilezoo_export.contract import Runner
from mobilezoo_export.feeding import noise, noise_for
from mobilezoo_export.profilers.timing import Row, shape_text, shares, timed
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import OperatorProfile, TensorSpec


def profile_litert(path: Path, runner: Runner, threads: int) -> OperatorProfile:
    """Time every operator of a LiteRT file.

    XNNPACK runs the whole graph as one and reports nothing of its parts, so each operator is cut out and timed alone.

    Args:
        path: the file.
        runner: the file as a whole, loaded with the same number of threads.
        threads: threads of each part's interpreter.
    """
    values = noise_for(runner.inputs)
    rows, left_out = time_parts(path.read_bytes(), values, threads)
    runner.feed(values)
    how = "each operator alone in a file of its own"
    return OperatorProfile(runner.runtime, timed(runner.invoke), shares(rows), how, tuple(left_out))


def time_parts(data: bytes, fed: Sequence[np.ndarray], threads: int) -> tuple[list[Row], list[str]]:
    """Time every operator of the main graph in a file of its own.

    Args:
        data: bytes of a LiteRT file.
        fed: a value for each input of the main graph.
        threads: threads of each part's interpreter.

    Returns:
        A row per operator, and the operators that cannot run alone, each with the reason.
    """
    parts, rows, left_out = _Parts(data, fed), list[Row](), list[str]()
    for number, operator in enumerate(parts.graph.operators):
        kind = parts.kind(operator)
        try:
            with quiet():
                ms = parts.run(operator, threads)
        except (RuntimeError, ValueError, TypeError, MobilezooError) as error:
            left_out.append(f"#{number} {kind}: {first_line(error, 160)}")
            continue
        if ms is not None:
            rows.append((f"#{number}", kind, parts.output_shape(operator), ms))
    return rows, left_out


class _Parts:
    """The main graph, and the values of the tensors computed so far."""

    def __init__(self, data: bytes, fed: Sequence[np.ndarray]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.data = schema, data
        self.model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
        self.graph: Any = self.model.subgraphs[0]
        self.values = dict(zip(map(int, self.graph.inputs), fed, strict=True))
        self.folded: dict[int, np.ndarray] = {}
        """Computed from constants alone."""

    def kind(self, operator: Any) -> str:
        """CONV_2D, or a custom operator's own name."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        names = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if not k.startswith("_")}
        name = str(names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN"))
        return (code.customCode or b"CUSTOM").decode(errors="replace") if name == "CUSTOM" else name

    def output_shape(self, operator: Any) -> str:
        """Format the shape of the first output, as computed."""
        first = next(iter(operator.outputs), None)
        return "" if first is None else shape_text(self.values[first].shape)

    def run(self, operator: Any, threads: int) -> float | None:
        """Run an operator and keep its outputs; returns its median ms, None if it reads constants only."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        live = [index for index in dict.fromkeys(operator.inputs) if self._is_live(index)]
        fed = [self._value(index) for index in live]
        # XNNPACK sets nothing up for a graph without inputs.
        resolver = OpResolverType.AUTO if live else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        file = self._file(operator, live, fed)
        interpreter = Interpreter(model_content=file, num_threads=threads, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        for detail, value in zip(interpreter.get_input_details(), fed, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        (self.values if live else self.folded).update(zip(operator.outputs, found, strict=True))
        return timed(interpreter.invoke) if live else None

    def _is_live(self, index: int) -> bool:
        """Whether a tensor gets its value at run time: no constant, no state, not absent (-1)."""
        if index < 0 or index in self.folded or self.graph.tensors[index].isVariable:
            return False
        return index in self.values or not len(self._stored(self.graph.tensors[index].buffer))

    def _value(self, index: int) -> np.ndarray:
        """Return a computed value; noise where the operator that computes it cannot run alone."""
        if index in self.values:
            return self.values[index]
        tensor = self.graph.tensors[index]
        shape = tuple(max(1, int(size)) for size in (tensor.shape if tensor.shape is not None else ()))
        spec = TensorSpec(name=_text(tensor.name), shape=shape, dtype=_numpy_name(self.schema, tensor.type))
        return noise(spec, np.random.default_rng(0))

    def _stored(self, buffer: int) -> Any:
        """Return the bytes of a buffer, which may lie behind the flatbuffer."""
        held = self.model.buffers[buffer]
        if held.data is not None and len(held.data):
            return np.asarray(held.data, dtype=np.uint8)
        return np.frombuffer(self.data[held.offset : held.offset + held.size] if held.offset > 1 else b"", np.uint8)

    def _file(self, operator: Any, live: Sequence[int], fed: Sequence[np.ndarray]) -> bytes:
        """Build a file that holds one operator with its constants and the subgraphs it calls."""
        import flatbuffers

        schema, further = self.schema, self.model.subgraphs[1:] if _calls_graphs(operator) else []
        hidden = operator.intermediates if operator.intermediates is not None else []
        kept = [int(index) for index in (*operator.inputs, *operator.outputs, *hidden) if index >= 0]
        place = {index: number for number, index in enumerate(dict.fromkeys(kept))}
        shapes = {index: value.shape for index, value in zip(live, fed, strict=True)}
        self._buffers = [schema.BufferT() for _ in self.model.buffers]
        part = schema.SubGraphT()
        part.tensors = [self._tensor(index, shapes) for index in place]
        for tensor in (tensor for graph in further for tensor in graph.tensors):
            self._keep(tensor.buffer)
        alone = schema.OperatorT()
        alone.__dict__.update(operator.__dict__)
        alone.inputs = [place.get(int(index), -1) for index in operator.inputs]
        alone.outputs = [place[int(index)] for index in operator.outputs]
        alone.intermediates = [place[int(index)] for index in hidden] or None
        part.operators, part.inputs, part.outputs = [alone], [place[index] for index in live], alone.outputs
        whole = schema.ModelT()
        whole.version, whole.operatorCodes = 3, self.model.operatorCodes
        whole.subgraphs, whole.buffers = [part, *further], self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(whole.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, index: int, shapes: dict[int, tuple[int, ...]]) -> Any:
        """Copy a tensor of the file, in the shape that it has at run time."""
        tensor = self.schema.TensorT()
        tensor.__dict__.update(self.graph.tensors[index].__dict__)
        tensor.shapeSignature = None
        if index in self.folded:
            value = self.folded[index]
            tensor.shape, tensor.buffer = list(value.shape), len(self._buffers)
            self._buffers.append(self.schema.BufferT())
            self._buffers[-1].data = np.frombuffer(value.tobytes(), np.uint8)
        elif index in shapes:
            tensor.shape, tensor.buffer = list(shapes[index]), 0
        else:
            self._keep(tensor.buffer)
        return tensor

    def _keep(self, buffer: int) -> None:
        """Copy a buffer under its own index."""
        stored = self._stored(buffer)
        if len(stored):
            self._buffers[buffer].data = stored


def _calls_graphs(operator: Any) -> bool:
    """Whether the operator's options name another graph of the file."""
    options = (operator.builtinOptions, operator.builtinOptions2)
    return any("subgraph" in name.lower() for each in options if each is not None for name in vars(each))


def _numpy_name(schema: Any, kind: int) -> str:
    names = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    return names.get(kind, "unknown")


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
