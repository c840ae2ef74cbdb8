"""What apps want in a file: raw pixels in, and notes on input and output inside the file itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.preprocessing import COLOURS, Preprocessing
from mobilezoo_export.contract import ExportSpec

KEY = "mobilezoo"
"""Name of the note in every format."""
INPUT, OUTPUT = "image", "logits"
"""Names of a file's input and output, where the format has names."""
NAME_FIELD = 10
"""Place of a tensor's name in the vtable of TFLite's schema."""


def pixel_scale(preprocessing: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), float32 [1, C, 1, 1], that normalise pixel values 0..255."""
    prep = preprocessing.for_channels(channels)
    mean, std = (np.asarray(values).reshape(1, channels, 1, 1) for values in (prep.mean, prep.std))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def to_pixels(batch: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Normalised float32 NCHW → the uint8 pixels it came from."""
    scale, shift = pixel_scale(preprocessing, batch.shape[1])
    pixels: np.ndarray = np.clip(np.rint((batch - shift) / scale), 0, 255).astype(np.uint8)
    return pixels


def to_normalised(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 NCHW pixels → float32 as the network expects."""
    scale, shift = pixel_scale(preprocessing, pixels.shape[1])
    return np.asarray(pixels * scale + shift, dtype=np.float32)


def notes(spec: ExportSpec, layout: str) -> dict[str, Any]:
    """What an app must know to feed the file and to read its answer."""
    prep = spec.preprocessing.for_channels(spec.in_chans)
    colours = COLOURS.get(spec.in_chans, f"{spec.in_chans} channels")
    return {
        "model": spec.model,
        "precision": spec.precision,
        "input": {
            "name": INPUT,
            "values": "pixels 0..255" if spec.options.image else "(pixels / 255 - mean) / std",
            "channels": colours,
            "mean": list(prep.mean),
            "std": list(prep.std),
            "layout": layout,
            "resolution": list(spec.resolution),
            "resize_and_crop": prep.rule(spec.resolution),
            "crop_pct": prep.crop_pct,
            "crop_mode": prep.crop_mode,
            "interpolation": prep.interpolation,
        },
        "output": "probabilities" if spec.options.softmax else "logits",
        "labels": list(spec.labels),
    }


def notes_text(spec: ExportSpec, layout: str) -> str:
    """The notes as JSON, the same for the same spec."""
    return json.dumps(notes(spec, layout), ensure_ascii=False, sort_keys=True)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes inside an exported file; empty where it holds none."""
    from mobilezoo_export.registry import exporter_of

    text = exporter_of(path).notes_in(path)
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def finish_litert(path: Path, text: str) -> None:
    """Name input and output, and append the notes as a metadata entry of the flatbuffer."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    _name_ends(model)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(text.encode())
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def _name_ends(model: Any) -> None:
    """Tensors and signatures of a file with one input and one output; the converter numbers them."""
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = INPUT, OUTPUT
    for signature in model.signatureDefs or ():
        signature.inputs[0].name, signature.outputs[0].name = INPUT, OUTPUT


def keep_litert_output_name(path: Path) -> None:
    """Give a quantised file's output its name back, which the quantiser leaves to the int8 tensor before it.

    In place: the file's other buffers stay where they are. The longer name is cut, and the int8 tensor renamed.
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
    """Overwrite a tensor's name, a flatbuffer string (length, bytes, zero), by one that is no longer."""
    at = tensor._tab.Pos + tensor._tab.Offset(NAME_FIELD)
    at += int.from_bytes(data[at : at + 4], "little")
    length, new = int.from_bytes(data[at : at + 4], "little"), name.encode()
    assert len(new) <= length
    data[at : at + 4] = len(new).to_bytes(4, "little")
    data[at + 4 : at + 4 + length] = new.ljust(length, b"\0")


def litert_notes(path: Path) -> str:
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        if model.Metadata(index).Name() == KEY.encode():
            buffer = model.Buffers(model.Metadata(index).Buffer())
            inside = buffer.DataLength() > 0
            end = buffer.Offset() + buffer.Size()
            return (bytes(buffer.DataAsNumpy()) if inside else data[buffer.Offset() : end]).decode()
    return ""


def onnx_notes(path: Path) -> str:
    import onnx

    return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}.get(KEY, "")


def coreml_notes(path: Path) -> str:
    import coremltools as ct

    return str(ct.utils.load_spec(str(path)).description.metadata.userDefined.get(KEY, ""))


def executorch_notes(path: Path) -> str:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    if KEY not in program.method_names:
        return ""
    method = program.load_method(KEY)
    return str(method.execute([])[0]) if method is not None else ""
