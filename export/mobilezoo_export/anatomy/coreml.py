"""Read the program of a Core ML package; weights stay on disk."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.anatomy.graph import Graph, Node, Shape, Tensor
from mobilezoo_export.anatomy.litert import LONGEST
from mobilezoo_export.quiet import quiet

NAMES = {"FLOAT16": "float16", "FLOAT32": "float32", "FLOAT64": "float64", "BFLOAT16": "bfloat16"}
BITS = {"BOOL": 8, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64}
COMPRESSED = ("constexpr_affine_dequantize", "constexpr_lut_to_dense", "constexpr_blockwise_shift_scale")
"""Operations that hold weights in fewer bits."""


def read_graph(path: Path) -> Graph:
    """Read a package. Raises ExportError for one that is no ML Program, or damaged."""
    with quiet():
        import coremltools as ct

        try:
            spec = ct.utils.load_spec(str(path))
        except Exception as error:  # reads a folder, JSON and protobuf, each with errors of its own
            raise ExportError(f"{path.name!r} cannot be read as a Core ML package: {first_line(error)}") from error
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise ExportError(f"{path.name!r} holds a {kind}, not an ML Program: only those are read here")
    functions = spec.mlProgram.functions
    if not functions:
        raise ExportError(f"{path.name!r} holds no function")
    name = "main" if "main" in functions else sorted(functions)[0]
    if functions[name].opset not in functions[name].block_specializations:  # reading it would make an empty one
        raise ExportError(f"{path.name!r}: its function {name!r} has no operations of {functions[name].opset!r}")
    return _read(functions[name], spec, sorted(set(functions) - {name}))


def _read(function: Any, spec: Any, others: list[str]) -> Graph:
    block = function.block_specializations[function.opset]
    tensors = {one.name: _tensor(one.name, one.type) for one in function.inputs}
    constant = [op for op in block.operations if op.type == "const" or op.type.startswith("constexpr_")]
    for op in constant:
        for out in op.outputs:
            tensors[out.name] = _tensor(out.name, out.type, _stored_bits(op, out.type), op.type in COMPRESSED)
    nodes = [op for op in block.operations if op.type != "const" and not op.type.startswith("constexpr_")]
    values = {op.outputs[0].name: op.attributes["val"] for op in constant if op.outputs and "val" in op.attributes}
    for op in nodes:
        tensors |= {out.name: _tensor(out.name, out.type) for out in op.outputs}
    inner = [one for op in nodes for one in op.blocks]
    called = [op for one in inner for op in one.operations]
    user = dict(spec.description.metadata.userDefined)
    about = spec.description.metadata
    told = {"author": about.author, "license": about.license, "description": about.shortDescription}
    source = user.pop("com.github.apple.coremltools.source", "")
    version = user.pop("com.github.apple.coremltools.version", "")
    return Graph(
        inputs=tuple(one.name for one in function.inputs),
        outputs=tuple(block.outputs),
        tensors=tensors,
        nodes=tuple(_node(index, op, values) for index, op in enumerate(nodes)),
        producer=" ".join(
            filter(None, [f"coremltools {version}" if version else "", source, f"({function.opset} operations)"])
        ),
        custom_ops=tuple(dict.fromkeys(op.type for op in (*nodes, *called) if op.type.startswith("custom_"))),
        further=Counter(str(op.type) for op in called),
        further_graphs=len(inner) + len(others),
        metadata={key: value[:LONGEST] for key, value in (told | user).items() if value},
        delegated=Counter(str(op.type) for op in constant if op.type.startswith("constexpr_")),
        notes=("values of stored weights are not looked at",),
    )


def _tensor(name: str, kind: Any, stored_bits: int | None = None, compressed: bool = False) -> Tensor:
    import coremltools.proto.MIL_pb2 as mil

    described = kind.tensorType
    dtype = str(mil.DataType.Name(described.dataType))
    shape: Shape | None = tuple(
        int(d.constant.size) if d.WhichOneof("dimension") == "constant" else None for d in described.dimensions
    )
    return Tensor(
        name=name,
        dtype=NAMES.get(dtype, dtype.lower()),
        shape=shape,
        scales=2 if compressed else 0,
        stored_bytes=None if stored_bits is None else -(-stored_bits // 8),
    )


def _stored_bits(op: Any, kind: Any) -> int:
    """Bits that a constant takes; of a compressed one, those of what it is decoded from."""
    if op.type == "const":
        return _bits(kind)
    held = [argument.value for one in op.inputs.values() for argument in one.arguments if argument.HasField("value")]
    return sum(_bits(value.type) for value in (*op.attributes.values(), *held) if value.type.HasField("tensorType"))


def _bits(kind: Any) -> int:
    import coremltools.proto.MIL_pb2 as mil

    dtype = str(mil.DataType.Name(kind.tensorType.dataType))
    sizes = [int(d.constant.size) for d in kind.tensorType.dimensions if d.WhichOneof("dimension") == "constant"]
    digits = "".join(filter(str.isdigit, dtype))
    return math.prod(sizes) * BITS.get(dtype, int(digits) if digits and not dtype.startswith("FLOAT") else 8)


def _node(index: int, op: Any, values: dict[str, Any]) -> Node:
    inputs = tuple(argument.name for one in op.inputs.values() for argument in one.arguments if argument.name)
    order = None
    if op.type == "transpose" and "perm" in op.inputs:
        given = op.inputs["perm"].arguments[0]
        value = given.value if given.HasField("value") else values.get(given.name)
        order = tuple(int(a) for a in value.immediateValue.tensor.ints.values) or None if value is not None else None
    first = ("x", "data", "input")  # protobuf's maps have no order: the activation comes first here
    named = [a.name for key in first if key in op.inputs for a in op.inputs[key].arguments if a.name]
    return Node(
        name=op.outputs[0].name if op.outputs else f"#{index}",
        op=str(op.type),
        inputs=tuple(dict.fromkeys([*named, *inputs])),
        outputs=tuple(out.name for out in op.outputs),
        permutation=order,
        effects=bool(op.blocks),
    )
