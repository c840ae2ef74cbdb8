"""Read the main graph of a LiteRT file from its flatbuffer; weights are looked at in place."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import ExportError
from mobilezoo_export.anatomy.graph import Graph, Node, Tensor

MAGIC = b"TFL3"
COMPARED = 1024
"""Bytes from which on stored tensors are compared with each other."""
EFFECTS = ("ASSIGN_VARIABLE", "CALL_ONCE", "WHILE", "IF", "CALL", "READ_VARIABLE", "VAR_HANDLE")
ACTIVATIONS = ("", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
LONGEST = 400
"""Characters of a metadata entry that are kept."""


def read_graph(path: Path) -> Graph:
    """Read a file. Raises ExportError for one that is no LiteRT file, or damaged."""
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    if data[4:8] != MAGIC:
        raise ExportError(f"{path.name!r} is no LiteRT file: the identifier TFL3 is missing")
    reader = _Reader(schema, data)
    return reader.graph()


class _Reader:
    """One flatbuffer."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data
        self._model = schema.Model.GetRootAs(data, 0)
        self._types = {value: name.lower() for name, value in vars(schema.TensorType).items() if name[0] != "_"}
        self._ops = {value: name for name, value in vars(schema.BuiltinOperator).items() if name[0] != "_"}
        self._custom: dict[str, None] = {}
        self._seen: set[int] = set()
        """Buffers of tensors so far: several tensors may share one."""

    def graph(self) -> Graph:
        """The main graph."""
        if self._model.SubgraphsLength() == 0:
            raise ExportError("the file holds no graph")
        main = self._model.Subgraphs(0)
        further = [self._model.Subgraphs(index) for index in range(1, self._model.SubgraphsLength())]
        tensors = {str(i): self._tensor(main.Tensors(i), i) for i in range(main.TensorsLength())}
        nodes = tuple(self._node(main, index) for index in range(main.OperatorsLength()))
        others = Counter(self._name(graph.Operators(i)) for graph in further for i in range(graph.OperatorsLength()))
        return Graph(
            inputs=tuple(str(main.Inputs(i)) for i in range(main.InputsLength())),
            outputs=tuple(str(main.Outputs(i)) for i in range(main.OutputsLength())),
            tensors=tensors,
            nodes=nodes,
            producer=(self._model.Description() or b"").decode(errors="replace"),
            custom_ops=tuple(self._custom),
            further=others,
            further_graphs=len(further),
            metadata=self._metadata(),
        )

    def _tensor(self, tensor: Any, index: int) -> Tensor:
        sizes = [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]
        signature = [int(tensor.ShapeSignature(i)) for i in range(tensor.ShapeSignatureLength())]
        shape = tuple(None if size < 0 else size for size in (signature or sizes))
        how, stored = tensor.Quantization(), self._stored(tensor.Buffer())
        scales = how.ScaleLength() if how is not None else 0
        shared, elements = tensor.Buffer() in self._seen, int(np.prod(sizes)) if sizes else 1
        self._seen.add(tensor.Buffer())
        return Tensor(
            name=(tensor.Name() or b"").decode(errors="replace") or f"#{index}",
            dtype=self._types.get(tensor.Type(), f"type {tensor.Type()}"),
            shape=shape,
            scales=scales,
            quantization=_words(how) if scales == 1 else "",
            stored_bytes=None if not len(stored) else 0 if shared else len(stored),
            zero=elements > 1 and len(stored) > 0 and not stored.any(),
            digest=hashlib.sha256(stored.tobytes()).hexdigest() if len(stored) >= COMPARED and not shared else "",
            variable=bool(tensor.IsVariable()),
        )

    def _stored(self, index: int) -> np.ndarray:
        """Bytes of a buffer, which may lie behind the flatbuffer."""
        if not 0 <= index < self._model.BuffersLength():
            return np.empty(0, np.uint8)
        buffer = self._model.Buffers(index)
        if buffer.DataLength():
            found: np.ndarray = buffer.DataAsNumpy()
            return found
        start, size = buffer.Offset(), buffer.Size()
        return np.frombuffer(self._data[start : start + size] if start > 1 else b"", np.uint8)

    def _name(self, operator: Any) -> str:
        """CONV_2D; a custom operator's own name."""
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        name = self._ops.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "UNKNOWN")
        if name == "CUSTOM":
            name = (code.CustomCode() or b"CUSTOM").decode(errors="replace")
            self._custom[name] = None
        return name

    def _node(self, graph: Any, index: int) -> Node:
        operator = graph.Operators(index)
        name = self._name(operator)
        inputs = [int(operator.Inputs(i)) for i in range(operator.InputsLength())]
        chosen = self._schema.OperatorT.InitFromObj(operator)
        fused = getattr(chosen.builtinOptions, "fusedActivationFunction", 0)
        order = None
        if name == "TRANSPOSE" and len(inputs) == 2 and 0 <= inputs[1] < graph.TensorsLength():
            stored = self._stored(graph.Tensors(inputs[1]).Buffer())
            order = tuple(int(axis) for axis in stored.view(np.int32)) if len(stored) else None
        return Node(
            name=f"#{index}",
            op=name,
            inputs=tuple("" if one < 0 else str(one) for one in inputs),
            outputs=tuple(str(operator.Outputs(i)) for i in range(operator.OutputsLength())),
            permutation=order,
            activation=ACTIVATIONS[fused] if fused < len(ACTIVATIONS) else str(fused),
            effects=name in EFFECTS,
            version=int(self._model.OperatorCodes(operator.OpcodeIndex()).Version()),
            options=_numbers(chosen.builtinOptions),
        )

    def _metadata(self) -> dict[str, str]:
        found = {}
        for index in range(self._model.MetadataLength()):
            entry = self._model.Metadata(index)
            raw = bytes(self._stored(entry.Buffer()))
            text = raw.decode(errors="replace").strip("\0")
            plain = text.isprintable() or text.startswith("{")
            name = (entry.Name() or b"").decode(errors="replace")
            found[name] = text[:LONGEST] if plain else f"{len(raw):,} bytes"
        return found


def _numbers(options: Any) -> dict[str, float]:
    return {name: value for name, value in vars(options or object).items() if isinstance(value, (bool, int, float))}


def _words(how: Any) -> str:
    zero = int(how.ZeroPoint(0)) if how.ZeroPointLength() else 0
    return f"scale {float(how.Scale(0)):.6g}, zero point {zero}"
