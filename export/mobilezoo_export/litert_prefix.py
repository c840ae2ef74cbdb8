"""The first operators of a LiteRT file as a file of its own."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import ExportError


def write_prefix(path: Path, operators: int, out: Path) -> None:
    """Write a file that computes what the first operators of another one compute.

    What they hand to later operators becomes an output. Constants are copied only as far as they are read.

    Args:
        path: a LiteRT file of one graph and fixed sizes.
        operators: how many, in the file's order.
        out: the file that is written.

    Raises:
        ExportError: the file has several graphs or no such number of operators.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    if len(model.subgraphs) != 1 or not 0 < operators <= len(graph.operators):
        raise ExportError(
            f"{path.name}: {operators} of {len(graph.operators)} operators in {len(model.subgraphs)} graphs cannot be "
            "cut out: one graph is needed"
        )
    kept, later = graph.operators[:operators], graph.operators[operators:]
    made = [int(index) for operator in kept for index in operator.outputs]
    wanted = {int(index) for operator in later for index in operator.inputs} | set(map(int, graph.outputs))
    graph.operators, graph.outputs = kept, [index for index in made if index in wanted]
    _drop_unread(schema, model, data)
    model.signatureDefs = model.metadata = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(builder.Output())


def _drop_unread(schema: Any, model: Any, data: bytes) -> None:
    """Leave out tensors and constants that no operator reads or writes, and name all others anew."""
    graph = model.subgraphs[0]
    ends = [*graph.inputs, *graph.outputs]
    used = [int(i) for operator in graph.operators for i in (*operator.inputs, *operator.outputs) if i >= 0]
    place = {index: number for number, index in enumerate(dict.fromkeys([*map(int, ends), *used]))}
    buffers = [schema.BufferT()]
    for tensor in (tensors := [graph.tensors[index] for index in place]):
        stored = _stored(model.buffers[tensor.buffer], data)
        tensor.buffer = len(buffers) if len(stored) else 0
        if len(stored):
            buffers.append(schema.BufferT())
            buffers[-1].data = stored
    graph.tensors, model.buffers = tensors, buffers
    graph.inputs, graph.outputs = ([place[int(index)] for index in end] for end in (graph.inputs, graph.outputs))
    for operator in graph.operators:
        operator.inputs = [place.get(int(index), -1) for index in operator.inputs]
        operator.outputs = [place[int(index)] for index in operator.outputs]


def _stored(buffer: Any, data: bytes) -> Any:
    """Bytes of a buffer, which may lie behind the flatbuffer."""
    if buffer.data is not None and len(buffer.data):
        return np.asarray(buffer.data, dtype=np.uint8)
    return np.frombuffer(data[buffer.offset : buffer.offset + buffer.size] if buffer.offset > 1 else b"", np.uint8)
