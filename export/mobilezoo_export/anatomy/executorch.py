"""Read an ExecuTorch program: its kernel calls, its delegates, and what XNNPACK's partitions hold.

A partition is a flatbuffer of XNNPACK's own schema behind a header (backends/xnnpack/serialization of ExecuTorch);
other delegates' parts are opaque.
"""

import struct
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.anatomy.graph import Graph, Node, Tensor
from mobilezoo_export.flat_table import FlatTable

TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
BITS = {"int16": 16, "int32": 32, "int64": 64, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
"""Of an element; those of all other types have 8."""
XNNPACK = "XnnpackBackend"
NODES, VALUES, UNION = 1, 2, 1
"""Fields of an XNNGraph, and of the nodes and values in it."""
DATATYPE, SIZES, STORED = 0, 2, 3
"""Fields of an XNNTensorValue."""
QUANTIZED = 2
"""`XNNQuantizedTensorValue` in the union of values."""
STORAGE = {
    1: ("float32", 32, 0),
    2: ("float16", 16, 0),
    3: ("int8", 8, 1),
    4: ("uint8", 8, 1),
    5: ("int32", 32, 1),
    6: ("int8", 8, 2),
    7: ("int32", 32, 2),
    8: ("int4", 4, 2),
    9: ("int8", 8, 1),
    10: ("int4", 4, 2),
}
"""XNNPACK's type → type, bits, and 1 for one scale, 2 for many."""


def read_graph(path: Path) -> Graph:
    """Read a program. Raises ExportError for one that is no ExecuTorch program, or damaged."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    data = path.read_bytes()
    if data[4:6] != b"ET":
        raise ExportError(f"{path.name!r} is no ExecuTorch program: the identifier ET is missing")
    try:
        program = deserialize_pte_binary(data).program
    except Exception as error:  # flatc and dataclasses raise whatever a damaged program leads to
        raise ExportError(f"{path.name!r} cannot be read as an ExecuTorch program: {first_line(error)}") from error
    plans = program.execution_plan
    plan = next((one for one in plans if one.name == "forward"), plans[0] if plans else None)
    if plan is None:
        raise ExportError(f"{path.name!r} holds no method")
    return _Reader(program, plan).graph([one.name for one in plans if one is not plan])


class _Reader:
    """One method of a program."""

    def __init__(self, program: Any, plan: Any) -> None:
        self._program, self._plan = program, plan
        self._tensors: dict[str, Tensor] = {}
        self._inside: Counter[str] = Counter()
        self._notes: list[str] = []

    def graph(self, others: list[str]) -> Graph:
        """The method as a graph; its delegates are nodes."""
        for index, value in enumerate(self._plan.values):
            self._tensors[str(index)] = self._tensor(index, value.val)
        calls = [one.instr_args for chain in self._plan.chains for one in chain.instructions]
        nodes = tuple(node for index, call in enumerate(calls) if (node := self._node(index, call)) is not None)
        delegates = tuple(
            self._plan.delegates[call.delegate_index].id for call in calls if type(call).__name__ == "DelegateCall"
        )
        for index, delegate in enumerate(self._plan.delegates):
            self._look_inside(index, delegate)
        return Graph(
            inputs=tuple(map(str, self._plan.inputs)),
            outputs=tuple(map(str, self._plan.outputs)),
            tensors=self._tensors,
            nodes=nodes,
            producer=f"ExecuTorch (schema {self._program.version})",
            further_graphs=len(others),
            metadata={"methods": ", ".join(others)} if others else {},
            delegated=self._inside,
            delegates=delegates,
            notes=tuple(self._notes),
        )

    def _tensor(self, index: int, value: Any) -> Tensor:
        if type(value).__name__ != "Tensor":
            return Tensor(name=f"value {index}", dtype="", shape=(), stored_bytes=0)
        stored = None
        kind = TYPES.get(int(value.scalar_type), f"type {int(value.scalar_type)}")
        sizes = tuple(int(size) for size in value.sizes)
        if value.allocation_info is None and value.data_buffer_idx > 0:
            stored = _bytes(sizes, BITS.get(kind, 8))
        open_sizes = int(value.shape_dynamism) != 0
        name = (value.extra_tensor_info.fully_qualified_name if value.extra_tensor_info else None) or f"value {index}"
        shape = tuple(None for _ in sizes) if open_sizes else sizes
        return Tensor(name=name, dtype=kind, shape=shape, stored_bytes=stored)

    def _node(self, index: int, call: Any) -> Node | None:
        kind, args = type(call).__name__, tuple(str(one) for one in getattr(call, "args", ()))
        if kind == "DelegateCall":
            name = self._plan.delegates[call.delegate_index].id
            name = "XNNPACK partition" if name == XNNPACK else name
        elif kind == "KernelCall":
            held = self._plan.operators[call.op_index]
            name = held.name.removeprefix("aten::")
            name = name if not name.startswith("quantized_decomposed::") else name.rpartition("::")[2]
        else:
            return None
        tensors = tuple(dict.fromkeys(one for one in args if self._is_tensor(one)))
        # A call lists its arguments and then its results, and does not tell which are which where there are several.
        return Node(name=f"#{index}", op=name, inputs=tensors[:-1], outputs=tensors[-1:], effects=True)

    def _is_tensor(self, name: str) -> bool:
        return name in self._tensors and self._tensors[name].dtype != ""

    def _look_inside(self, index: int, delegate: Any) -> None:
        if delegate.id != XNNPACK:
            line = f"what {delegate.id} holds is not read"
            self._notes += [line] if line not in self._notes else []
            return
        inline = self._program.backend_delegate_data
        place = delegate.processed
        data = inline[place.index].data if place.index < len(inline) else b""
        try:
            ops, stored = read_partition(bytes(data))
        except (ValueError, IndexError, TypeError, struct.error) as error:
            self._notes.append(f"an XNNPACK partition cannot be read ({first_line(error, 80)})")
            return
        self._inside += ops
        self._tensors |= {f"partition {index}: {number}": tensor for number, tensor in enumerate(stored)}


def read_partition(data: bytes) -> tuple[Counter[str], list[Tensor]]:
    """Read an XNNPACK partition.

    Args:
        data: what the program holds for the delegate.

    Returns:
        Operators by name, and all values, those that are stored among them.

    Raises:
        ValueError, IndexError, TypeError, struct.error: the data are damaged.
    """
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

    if data[4:8] == b"XH00":
        start, size = struct.unpack_from("<II", data, 10)
        data = data[start : start + size]
    names = [kind.__name__ if isinstance(kind, type) else kind.__forward_arg__ for kind in get_args(schema.XNodeUnion)]
    held = bytearray(data)
    root = FlatTable(held, struct.unpack_from("<I", held, 0)[0])
    ops: Counter[str] = Counter()
    for node in root.tables(NODES):
        number = node.byte(0)
        ops[names[number - 1].removeprefix("XNN") if 0 < number <= len(names) else f"operator {number}"] += 1
    values = []
    for value in root.tables(VALUES):
        union = value.table(UNION)
        base = union.table(0) if union is not None and value.byte(0) == QUANTIZED else union
        if base is None:
            continue
        dtype, bits, scales = STORAGE.get(base.whole(DATATYPE, 2), ("unknown", 8, 0))
        shape = base.wholes(SIZES)
        stored = _bytes(shape, bits) if base.whole(STORED) else None
        values.append(Tensor(name="inside XNNPACK", dtype=dtype, shape=shape, scales=scales, stored_bytes=stored))
    return ops, values


def _bytes(sizes: tuple[int, ...], bits: int) -> int:
    total = 1
    for size in sizes:
        total *= size
    return -(-total * bits // 8)
