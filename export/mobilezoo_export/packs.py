"""Read the metadata embedded in a file: TFLite metadata packs, ONNX properties, Core ML descriptions, our own entry.

Only what is declared is returned; nothing is guessed. Layout of the packs: tensorflow/tflite-support,
metadata_schema.fbs.
"""

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Preprocessing
from mobilezoo.errors import ExportError
from mobilezoo_export.flat_table import FlatTable
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.records import FileMetadata
from mobilezoo_export.registry import exporter_of

LARGEST_LIST = 4_000_000
"""Most bytes of a label file."""
PACK = b"TFLITE_METADATA"
NORMALIZATION = 1
"""`ProcessUnitOptions` of the schema."""
AXIS_LABELS, VALUE_LABELS = 2, 3
"""`AssociatedFileType` of the schema."""
RANGES = {"NominalRange_0_255": (0.0, 1 / 255), "Normalized_0_1": (0.0, 1.0), "Normalized_1_1": (0.5, 0.5)}
"""ONNX's `Image.NominalPixelRange` → mean and deviation of pixels in 0..1."""
LABEL_KEYS = ("labels", "names", "classes", "class_names", "id2label")


def read_file_metadata(path: Path) -> FileMetadata:
    """Read the preprocessing, labels and kind of output that a file declares, in our own entry or in its format's.

    Raises:
        ExportError: the suffix is unknown, the metadata is damaged, or the input is not supported (BGR images).
    """
    metadata = read_metadata(path)
    return _from_metadata(metadata) if metadata else exporter_of(path).read_file_metadata(path)


def _from_metadata(metadata: dict[str, Any]) -> FileMetadata:
    """Convert our own entry, for a file that has lost its record."""
    given, fields = metadata.get("input", {}), Preprocessing.model_fields
    prep = Preprocessing.parse({name: value for name, value in given.items() if name in fields}, "the metadata inside")
    return FileMetadata(prep, tuple(metadata.get("labels", ())), metadata.get("output"))


# ---- TFLite ---------------------------------------------------------------------------------------------------------


def from_litert(path: Path) -> FileMetadata:
    """Read the TFLite metadata pack of a file; empty for a file without one. Raises ExportError for a damaged pack."""
    pack = _pack_of(path)
    if pack is None:
        return FileMetadata()
    try:
        root = FlatTable(pack, int.from_bytes(pack[:4], "little"))
        graph = next(iter(root.tables(3)), None)
        if graph is None:
            return FileMetadata()
        inputs, outputs = graph.tables(2), graph.tables(3)
        return FileMetadata(_normalization(inputs), _listed(path, outputs))
    except (ValueError, IndexError, TypeError, OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise ExportError(f"{path.name!r}: its TFLite metadata is damaged ({error})") from error


def _pack_of(path: Path) -> bytes | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    for index in range(model.MetadataLength()):
        if model.Metadata(index).Name() == PACK:
            return bytes(model.Buffers(model.Metadata(index).Buffer()).DataAsNumpy())
    return None


def _normalization(inputs: list[FlatTable]) -> Preprocessing | None:
    """Read mean and std; the schema defines (pixel - mean) / std on pixels 0..255, ours are on 0..1."""
    if len(inputs) != 1:
        return None
    for unit in inputs[0].tables(4):
        options = unit.table(1)
        if unit.byte(0) == NORMALIZATION and options is not None:
            mean, std = options.floats(0), options.floats(1)
            count = max(len(mean), len(std))  # one number may stand for all channels
            mean, std = (values * count if len(values) == 1 else values for values in (mean, std))
            return Preprocessing(mean=tuple(m / 255 for m in mean), std=tuple(s / 255 for s in std))
    return None


def _listed(path: Path, outputs: list[FlatTable]) -> tuple[str, ...]:
    """Read the labels of the first output from the zip archive that is appended to the file."""
    files = [file for tensor in outputs[:1] for file in tensor.tables(6)]
    named = [file.text(0) for file in files if file.byte(2) in (AXIS_LABELS, VALUE_LABELS) and not file.text(3)]
    if not named or not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        if named[0] not in archive.namelist():
            return ()
        if archive.getinfo(named[0]).file_size > LARGEST_LIST:
            raise ValueError(f"{named[0]} is larger than any list of labels")
        lines = archive.read(named[0]).decode("utf-8", "replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


# ---- ONNX, Core ML --------------------------------------------------------------------------------------------------


def from_onnx(path: Path) -> FileMetadata:
    """Read an ONNX file's image and label properties. Raises ExportError for pixels in another order than RGB."""
    import onnx

    properties = {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}
    order = properties.get("Image.BitmapPixelFormat", "Rgb8")
    if order not in ("Rgb8", "Gray8"):
        raise ExportError(f"{path.name!r} takes pixels in the order {order}: only RGB and grey are given here")
    scaling = RANGES.get(properties.get("Image.NominalPixelRange", ""))
    prep = Preprocessing(mean=(scaling[0],) * 3, std=(scaling[1],) * 3) if scaling else None
    return FileMetadata(prep, _labels_in(properties))


def from_coreml(path: Path) -> FileMetadata:
    """Read the image input and the labels of a Core ML package. Raises ExportError for BGR images."""
    import coremltools as ct

    spec = ct.utils.load_spec(str(path))
    described = spec.description
    pixels = [f.type.imageType for f in described.input if f.type.WhichOneof("Type") == "imageType"]
    if pixels and pixels[0].colorSpace == ct.proto.FeatureTypes_pb2.ImageFeatureType.BGR:
        raise ExportError(f"{path.name!r} takes BGR images: only RGB and grey are given here")
    # What an image's scale and bias were is inside the program: pixels go in as they are.
    prep = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3) if pixels else None
    labels = _labels_in(dict(described.metadata.userDefined)) or _classifier_names(spec)
    return FileMetadata(prep, labels, "probabilities" if described.predictedProbabilitiesName else None)


def _classifier_names(spec: Any) -> tuple[str, ...]:
    """Read the class names in a classifier's last operation."""
    for function in spec.mlProgram.functions.values():
        block = function.block_specializations[function.opset]
        values = {out.name: op for op in block.operations for out in op.outputs if op.type == "const"}
        for op in block.operations:
            if op.type == "classify":
                given = op.inputs["classes"].arguments[0]
                if given.HasField("value"):
                    return _strings(given.value)
                made = values.get(given.name)
                return _strings(made.attributes["val"]) if made else ()
    return ()


def _strings(value: Any) -> tuple[str, ...]:
    """Convert a list of an ML Program, or a tensor of strings or integers, to names."""
    inside = value.immediateValue
    if inside.HasField("list"):
        return tuple(name for item in inside.list.values for name in _strings(item))
    return tuple(map(str, (*inside.tensor.strings.values, *inside.tensor.longInts.values)))


def _labels_in(properties: dict[str, str]) -> tuple[str, ...]:
    """Parse the names under a usual key: JSON, Python literals, or text separated by commas or line ends."""
    text = next((properties[key] for key in LABEL_KEYS if properties.get(key)), "")
    if not text or len(text) > LARGEST_LIST:
        return ()
    found: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(found, dict):
        numbered = {int(key): name for key, name in found.items() if str(key).isdecimal()}
        found = [numbered.get(i) for i in range(len(found))]
    if not isinstance(found, list | tuple):
        found = text.splitlines() if "\n" in text else text.split(",")
    names = tuple(str(name).strip() for name in found if name is not None)
    return names if len(names) == len(found) and len(names) > 1 else ()
