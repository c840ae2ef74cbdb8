"""Read a saved `.aimodel` into plain Python: graphs, operations, constants.

A folder of `main.mlirb` (MLIR bytecode of the Core AI dialect), `main.hash` (its SHA-256) and `metadata.json`. The
bindings give structure and small constants; large ones lie in resource blobs, which they give as text only.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import ExportError, first_line

PROGRAM, HASH, METADATA = "main.mlirb", "main.hash", "metadata.json"
LARGEST_PROGRAM = 4 << 30
MAIN = "main"
TYPES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i1": "bool",
    "si8": "int8",
    "si16": "int16",
    "si32": "int32",
    "si64": "int64",
    "ui8": "uint8",
    "ui16": "uint16",
    "ui32": "uint32",
}
"""Element types by MLIR's name → NumPy's name."""
_BLOB = re.compile(r'"?([\w.$-]+)"?: "0x([0-9A-Fa-f]*)"')
_ALIGNMENT = 4
"""Bytes before the data of a blob."""
_RESOURCE = re.compile(r'dense_resource<"?([\w.$-]+)"?>')
_COMPOSITE = re.compile(r'composite_declaration<"([^"]+)"')
_CALLEE = re.compile(r"@([\w.$-]+)")
_NAME = re.compile(r'coreai\.name = "([^"]*)"')


@dataclass(frozen=True)
class Value:
    """A value as the program declares it."""

    number: int
    """Place in its graph."""
    shape: tuple[int | None, ...]
    """None: the size is open."""
    dtype: str
    """Element type, by NumPy's name."""
    name: str = ""


@dataclass(frozen=True)
class Operation:
    """One operation, without the prefix of the dialect."""

    name: str
    operands: tuple[int, ...]
    results: tuple[Value, ...]
    attributes: dict[str, str]
    callee: str = ""
    """Graph that an `invoke` calls."""


@dataclass
class Graph:
    """A function of the program."""

    name: str
    composite: str
    """What a private graph spells out (`group_norm`); empty for others."""
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    operations: list[Operation] = field(default_factory=list)
    constants: dict[int, np.ndarray] = field(default_factory=dict)


def read_graphs(path: Path) -> dict[str, Graph]:
    """Read all graphs of a model by name.

    Args:
        path: the `.aimodel` folder.

    Raises:
        ExportError: the folder or its program is damaged.
    """
    _check_parts(path)
    try:
        return _graphs(_module(path / PROGRAM))
    except ExportError as error:
        raise ExportError(f"{path.name!r}: {error}") from error
    except Exception as error:  # the bindings raise errors of their own
        reason = f"{type(error).__name__}: {first_line(error, 200)}"
        raise ExportError(f"{path.name!r} cannot be read as a Core AI model: {reason}") from error


def main_graph(graphs: dict[str, Graph], path: Path) -> Graph:
    """Return the graph that an app calls. Raises ExportError where there is none.

    Args:
        graphs: those of the file.
        path: the file, for the message.
    """
    if MAIN not in graphs:
        raise ExportError(f"{path.name!r} has no function {MAIN!r}, only {', '.join(graphs) or 'none'}")
    return graphs[MAIN]


def _check_parts(path: Path) -> None:
    """Raise ExportError for a missing part, and for a program that is not the one that was saved."""
    if not path.is_dir():
        raise ExportError(f"{path.name!r} cannot be read as a Core AI model: it is no folder with {PROGRAM}")
    for part in (PROGRAM, HASH):
        if not (path / part).is_file():
            raise ExportError(f"{path.name!r} cannot be read as a Core AI model: {part} is missing")
    if (path / PROGRAM).stat().st_size > LARGEST_PROGRAM:
        raise ExportError(f"{path.name!r} is too large to be read: {PROGRAM} has more than 4 GiB")
    with (path / PROGRAM).open("rb") as program, (path / HASH).open("rb") as stated:
        if hashlib.file_digest(program, "sha256").digest() != stated.read(64):
            raise ExportError(f"{path.name!r} cannot be read as a Core AI model: {PROGRAM} is not what {HASH} states")


def _module(program: Path) -> Any:
    """Load the bytecode. coreai-core's own reader of assets goes the same way."""
    from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import load_module_from_bytecode
    from coreai.authoring.context import Context

    return load_module_from_bytecode(context=Context()._mlir_context, path=program)


def _graphs(module: Any) -> dict[str, Graph]:
    blobs = _blobs(module.operation.get_asm())
    graphs = (_graph(item.operation, blobs) for item in module.body.operations)
    return {graph.name: graph for graph in graphs}


def _blobs(text: str) -> dict[str, bytes]:
    """Resource blobs of a printed module, by name; its last part lists them."""
    start = text.rfind("{-#")
    if start < 0:
        return {}
    return {found[1]: bytes.fromhex(found[2])[_ALIGNMENT:] for found in _BLOB.finditer(text, start)}


def _graph(item: Any, blobs: dict[str, bytes]) -> Graph:
    if item.name != "coreai.graph":
        raise ExportError(f"the program holds {item.name!r} beside its graphs, which the program check does not know")
    (block,) = item.regions[0].blocks
    composite = _COMPOSITE.search(_attribute(item, "composite_decl"))
    graph = Graph(name=item.attributes["sym_name"].value, composite=composite[1] if composite else "")
    numbers: dict[Any, int] = {}
    names = _NAME.findall(_attribute(item, "arg_attrs"))
    graph.inputs = tuple(_declared(value, numbers, name) for value, name in _named(block.arguments, names))
    for each in block.operations:
        _read(each.operation, graph, numbers, blobs)
    given = _NAME.findall(_attribute(item, "res_attrs"))
    if len(given) == len(graph.outputs):
        graph.outputs = tuple(
            Value(one.number, one.shape, one.dtype, name) for one, name in zip(graph.outputs, given, strict=True)
        )
    return graph


def _read(item: Any, graph: Graph, numbers: dict[Any, int], blobs: dict[str, bytes]) -> None:
    """Add one operation to its graph."""
    name = item.name.removeprefix("coreai.").removeprefix("decomposable.broadcasting_")
    if len(item.regions):
        raise ExportError(f"the program branches ({name}), which the program check does not compute")
    operands = tuple(numbers[value] for value in item.operands)
    if name == "output":
        graph.outputs = tuple(_typed(value, number) for value, number in zip(item.operands, operands, strict=True))
        return
    results = tuple(_declared(value, numbers) for value in item.results)
    if name == "constant":
        graph.constants[results[0].number] = _constant(item.attributes["value"], results[0], blobs)
        return
    attributes = {one.name: str(one.attr) for one in _each(item.attributes)}
    callee = _CALLEE.search(attributes.get("callee", ""))
    graph.operations.append(Operation(name, operands, results, attributes, callee[1] if callee else ""))


def _each(attributes: Any) -> Iterator[Any]:
    return (attributes[index] for index in range(len(attributes)))


def _attribute(item: Any, name: str) -> str:
    return str(item.attributes[name]) if name in item.attributes else ""


def _named(values: Any, names: list[str]) -> list[tuple[Any, str]]:
    values = list(values)
    return list(zip(values, names if len(names) == len(values) else [""] * len(values), strict=True))


def _declared(value: Any, numbers: dict[Any, int], name: str = "") -> Value:
    """Number a new value."""
    numbers[value] = len(numbers)
    return _typed(value, numbers[value], name)


def _typed(value: Any, number: int, name: str = "") -> Value:
    from coreai._compiler.ir import RankedTensorType

    if not RankedTensorType.isinstance(value.type):
        raise ExportError(f"a value of type {value.type} is not computed by the program check")
    kind = RankedTensorType(value.type)
    element = str(kind.element_type)
    if element not in TYPES:
        raise ExportError(f"values of type {element} are not computed by the program check")
    sizes = (None if kind.is_dynamic_dim(axis) else int(kind.get_dim_size(axis)) for axis in range(kind.rank))
    return Value(number, tuple(sizes), TYPES[element], name)


def _constant(attribute: Any, value: Value, blobs: dict[str, bytes]) -> np.ndarray:
    """A constant's values. Raises ExportError for a blob that is missing or of another size."""
    dtype = np.dtype(value.dtype)
    shape = tuple(int(size or 0) for size in value.shape)
    found = _RESOURCE.match(str(attribute)) if type(attribute).__name__ == "Attribute" else None
    if found is None:
        return np.array(attribute, dtype=dtype).reshape(shape)
    data = blobs.get(found[1], b"")
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        raise ExportError(f"the values of the constant {found[1]} are missing or of another size than it declares")
    return np.frombuffer(data, dtype).reshape(shape)
