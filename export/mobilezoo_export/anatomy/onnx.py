"""Read the main graph of an ONNX file; shapes are those that ONNX infers."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.anatomy.graph import Graph, Node, Shape, Tensor
from mobilezoo_export.anatomy.litert import COMPARED, LONGEST

KNOWN_DOMAINS = ("", "ai.onnx")
RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml")
"""Operators that ONNX Runtime brings along; other runtimes do not."""
TYPES = {"float": "float32", "double": "float64"}
LARGEST_INFERRED = 2**31 - 1
"""Bytes of a model that shape inference takes."""


def read_graph(path: Path) -> Graph:
    """Read a file. Raises ExportError for one that is no ONNX file, or damaged."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises its own
        raise ExportError(f"{path.name!r} is no ONNX file: {first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ExportError(f"{path.name!r} is no ONNX file: it holds no graph")
    notes: list[str] = []
    if model.ByteSize() < LARGEST_INFERRED:
        try:
            model = onnx.shape_inference.infer_shapes(model)
        except Exception as error:  # raises whatever a graph without sense leads to
            notes.append(f"shapes could not be inferred ({first_line(error, 120)})")
    return _Reader(model, path, notes).graph()


class _Reader:
    """One model."""

    def __init__(self, model: Any, path: Path, notes: list[str]) -> None:
        self._model, self._graph, self._path, self._notes = model, model.graph, path, notes
        self._tensors: dict[str, Tensor] = {}
        self._opsets = {one.domain: one.version for one in model.opset_import}

    def graph(self) -> Graph:
        """The main graph."""
        graph = self._graph
        for value in (*graph.value_info, *graph.output, *graph.input):
            self._tensors[value.name] = Tensor(name=value.name, dtype=_dtype(value), shape=_shape(value))
        for tensor in graph.initializer:
            self._tensors[tensor.name] = self._stored(tensor, tensor.name)
        kept = []
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in KNOWN_DOMAINS:
                self._constant(node)
            else:
                kept.append(node)
        scales = self._scales(kept)
        self._tensors |= {name: _with(self._tensors[name], how) for name, how in scales.items()}
        held = {tensor.name for tensor in graph.initializer}
        inner = [one for node in kept for one in _inner(node)]
        called = [node for one in inner for node in one.node]
        return Graph(
            inputs=tuple(value.name for value in graph.input if value.name not in held),
            outputs=tuple(value.name for value in graph.output),
            tensors=self._tensors,
            nodes=tuple(self._node(index, node) for index, node in enumerate(kept)),
            producer=" ".join(filter(None, [self._model.producer_name, self._model.producer_version, self._opset()])),
            custom_ops=tuple(dict.fromkeys(_full_name(node) for node in (*kept, *called) if self._is_custom(node))),
            further=Counter(map(_full_name, called)),
            further_graphs=len(inner),
            metadata={p.key: p.value[:LONGEST] for p in self._model.metadata_props},
            notes=tuple(self._notes),
        )

    def _opset(self) -> str:
        return f"(opset {self._opsets.get('', self._opsets.get('ai.onnx', 0))}, IR {self._model.ir_version})"

    def _is_custom(self, node: Any) -> bool:
        own = {(function.domain, function.name) for function in self._model.functions}
        return node.domain not in (*KNOWN_DOMAINS, *RUNTIME_DOMAINS) and (node.domain, node.op_type) not in own

    def _constant(self, node: Any) -> None:
        """Keep the value of a Constant node as a stored tensor."""
        for one in node.attribute:
            if one.name == "value":
                self._tensors[node.output[0]] = self._stored(one.t, node.output[0])
                return
        self._tensors[node.output[0]] = Tensor(name=node.output[0], dtype="", stored_bytes=node.ByteSize())

    def _stored(self, tensor: Any, name: str) -> Tensor:
        import onnx

        kind = str(onnx.TensorProto.DataType.Name(tensor.data_type)).lower()
        dtype, shape = TYPES.get(kind, kind), tuple(int(size) for size in tensor.dims)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            length = next((int(one.value) for one in tensor.external_data if one.key == "length"), 0)
            line = "weights lie in files beside this one"
            self._notes += [line] if line not in self._notes else []
            return Tensor(name=name, dtype=dtype, shape=shape, stored_bytes=length)
        raw = tensor.raw_data
        if not raw:
            return Tensor(name=name, dtype=dtype, shape=shape, stored_bytes=tensor.ByteSize())
        zero = len(shape) > 0 and int(np.prod(shape)) > 1 and not np.frombuffer(raw, np.uint8).any()
        digest = hashlib.sha256(raw).hexdigest() if len(raw) >= COMPARED else ""
        return Tensor(name=name, dtype=dtype, shape=shape, stored_bytes=len(raw), zero=zero, digest=digest)

    def _scales(self, nodes: list[Any]) -> dict[str, tuple[int, str]]:
        """Tensor → number of scales and scale in words, of values that (de)quantizers read or write."""
        from onnx import TensorProto, numpy_helper

        # the reader opens no further files: what lies in them has no value here
        held = [tensor for tensor in self._graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
        values = {tensor.name: tensor for tensor in held}
        found = {}
        for node in nodes:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
                continue
            name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            scale = self._tensors.get(node.input[1])
            if name not in self._tensors or scale is None or scale.shape is None or None in scale.shape:
                continue
            count, words = math.prod(size or 1 for size in scale.shape), ""
            if count == 1 and node.input[1] in values and scale.stored_bytes:
                words = f"scale {float(numpy_helper.to_array(values[node.input[1]]).reshape(-1)[0]):.6g}"
            found[name] = (count, words)
        return found

    def _node(self, index: int, node: Any) -> Node:
        order = next((tuple(int(a) for a in one.ints) for one in node.attribute if one.name == "perm"), None)
        if node.op_type == "Transpose" and order is None:  # ONNX reverses the axes then
            shape = self._tensors[node.input[0]].shape if node.input[0] in self._tensors else None
            order = tuple(reversed(range(len(shape)))) if shape is not None else None
        captured = [name for graph in _inner(node) for name in _captured(graph)]
        return Node(
            name=node.name or f"#{index}",
            op=_full_name(node),
            inputs=(*node.input, *(name for name in captured if name in self._tensors)),
            outputs=tuple(name for name in node.output if name),
            permutation=order if node.op_type == "Transpose" else None,
        )


def _full_name(node: Any) -> str:
    return str(node.op_type) if node.domain in KNOWN_DOMAINS else f"{node.domain}:{node.op_type}"


def _inner(node: Any) -> Iterator[Any]:
    """Graphs that a node calls, those inside of them included."""
    for one in node.attribute:
        for graph in (*([one.g] if one.HasField("g") else []), *one.graphs):
            yield graph
            for inside in graph.node:
                yield from _inner(inside)


def _captured(graph: Any) -> list[str]:
    """Names that a called graph reads; those of its own are harmless, since names are unique."""
    return [name for node in graph.node for name in node.input] + [value.name for value in graph.output]


def _dtype(value: Any) -> str:
    import onnx

    kind = str(onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()
    return "" if kind == "undefined" else TYPES.get(kind, kind)


def _shape(value: Any) -> Shape | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)


def _with(tensor: Tensor, how: tuple[int, str]) -> Tensor:
    """The tensor with its scales."""
    return replace(tensor, scales=how[0], quantization=how[1])
