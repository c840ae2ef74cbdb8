"""Edit converted LiteRT files: names of input and output, and the metadata entry."""

from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Quantization
from mobilezoo_export.metadata import INPUT, KEY, OUTPUT
from mobilezoo_export.records import Borders
from mobilezoo_export.tflite_metadata import ENTRY

NAME_FIELD, DATA_FIELD, SHAPE_FIELD, SIGNATURE_FIELD = 10, 4, 4, 18
"""Places of a tensor's name, a buffer's bytes and a tensor's two shapes in the vtables of TFLite's schema."""
HALF_KEY, HALF_VALUE = "reduced_precision_support", "fp16accfp16"
"""The entry by which TFLite's XNNPACK delegate computes in half precision where the core has it (ARMv8.2 on), and in
float32 where it has not; `lite/delegates/utils/reduced_precision_metadata.h` of TensorFlow names both."""


def name_and_note(path: Path, text: str, pack: bytes, half: bool = False) -> None:
    """Name input and output, and append the metadata entries of the flatbuffer.

    Args:
        path: a converted file, rewritten.
        text: the metadata of this project, JSON.
        pack: the metadata of the official schema.
        half: let the runtime compute in half precision.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    _name_ends(model)
    half_entry = ((HALF_KEY, HALF_VALUE.encode()),) if half else ()
    for key, value in ((KEY, text.encode()), (ENTRY, pack), *half_entry):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(value)
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def _name_ends(model: Any) -> None:
    """Name the input and output of the main graph and of its signatures; the converter numbers them."""
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = INPUT, OUTPUT
    for signature in model.signatureDefs or ():
        signature.inputs[0].name, signature.outputs[0].name = INPUT, OUTPUT


def keep_output_name(path: Path) -> None:
    """Restore the name of a quantized file's output, which the quantizer moves to the int8 tensor before it.

    Edits in place, since the file's other buffers must keep their offsets: the longer name is cut, and the int8 tensor
    renamed.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = bytearray(path.read_bytes())
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    output = graph.Outputs(0)
    if graph.Tensors(output).Name() != f"{OUTPUT}_dequant".encode():
        return
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        if index == output:
            _rename(data, tensor, OUTPUT)
        elif tensor.Name() == OUTPUT.encode():
            _rename(data, tensor, "int8")
    path.write_bytes(data)


def _rename(data: bytearray, tensor: Any, name: str) -> None:
    """Overwrite a tensor's name, a flatbuffer string (length, bytes, zero), with one that is not longer."""
    at = tensor._tab.Pos + tensor._tab.Offset(NAME_FIELD)
    at += int.from_bytes(data[at : at + 4], "little")
    length, new = int.from_bytes(data[at : at + 4], "little"), name.encode()
    assert len(new) <= length
    data[at : at + 4] = len(new).to_bytes(4, "little")
    data[at + 4 : at + 4 + length] = new.ljust(length, b"\0")


def write_fixed(path: Path, shapes: dict[int, tuple[int, ...]], out: Path) -> None:
    """Write a copy of a file whose main graph's tensors have these shapes, and no open sizes.

    Sizes are overwritten in place, so that weights and whatever else the file holds stay as they are.

    Args:
        path: the file.
        shapes: tensor → its shape; of another rank than the file's, or unknown: left as it is.
        out: where the copy goes.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = bytearray(path.read_bytes())
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor, shape = graph.Tensors(index), shapes.get(index, ())
        for field, length in ((SHAPE_FIELD, tensor.ShapeLength()), (SIGNATURE_FIELD, tensor.ShapeSignatureLength())):
            if shape and length == len(shape):
                at = tensor._tab.Vector(tensor._tab.Offset(field))
                data[at : at + 4 * length] = b"".join(size.to_bytes(4, "little", signed=True) for size in shape)
    out.write_bytes(data)


def borders_of(path: Path) -> Borders:
    """Read scales and zero points of a LiteRT file's first input and output."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    return Borders(*(_quantization(schema, graph.Tensors(index)) for index in (graph.Inputs(0), graph.Outputs(0))))


def _quantization(schema: Any, tensor: Any) -> Quantization | None:
    names = {schema.TensorType.INT8: "int8", schema.TensorType.UINT8: "uint8", schema.TensorType.INT16: "int16"}
    how = tensor.Quantization()
    if tensor.Type() not in names or how is None or how.ScaleLength() != 1:
        return None
    fields = {"dtype": names[tensor.Type()], "scale": float(how.Scale(0)), "zero_point": int(how.ZeroPoint(0))}
    return Quantization.parse(fields, "file")


def rewrite_metadata(path: Path, text: str) -> None:
    """Replace the metadata of a finished file in place; all buffers keep their offsets.

    Args:
        path: a LiteRT file with a metadata entry.
        text: JSON, at most as many bytes as the entry has; the rest is filled with spaces.
    """
    data = bytearray(path.read_bytes())
    start, end = _span(data)
    new = text.encode()
    assert len(new) <= end - start
    data[start:end] = new.ljust(end - start)
    path.write_bytes(data)


def computes_in_half(path: Path) -> bool:
    """Whether a file lets the runtime compute in half precision.

    Args:
        path: a LiteRT file.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    return any(model.Metadata(i).Name() == HALF_KEY.encode() for i in range(model.MetadataLength()))


def has_float_parts(path: Path) -> bool:
    """Whether an operator computes floats from floats, as all do in float files and some in int8 files.

    Args:
        path: a LiteRT file.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    floats = {i for i in range(graph.TensorsLength()) if graph.Tensors(i).Type() == schema.TensorType.FLOAT32}
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    return any(
        any(one.Inputs(i) in floats for i in range(one.InputsLength()))
        and any(one.Outputs(i) in floats for i in range(one.OutputsLength()))
        for one in operators
    )


def read_metadata_text(path: Path) -> str:
    """Return the text of the metadata entry; empty for a file without one."""
    data = path.read_bytes()
    start, end = _span(data)
    return data[start:end].decode()


def _span(data: bytes | bytearray) -> tuple[int, int]:
    """Return the byte span of the metadata, inside the flatbuffer or behind it; (0, 0) for a file without it."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        if model.Metadata(index).Name() == KEY.encode():
            buffer = model.Buffers(model.Metadata(index).Buffer())
            if buffer.DataLength():
                start = buffer._tab.Vector(buffer._tab.Offset(DATA_FIELD))
                return start, start + buffer.DataLength()
            return buffer.Offset(), buffer.Offset() + buffer.Size()
    return 0, 0
