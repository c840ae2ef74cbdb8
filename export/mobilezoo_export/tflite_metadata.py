"""TFLite metadata in the official schema, which Android's task libraries and Netron read; ours is beside it.

Schema: tensorflow/tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs (Apache-2.0), written by the
numbers of its fields. A file of labels is appended as a zip archive, as that project's `MetadataPopulator` does.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobilezoo.preprocessing import Preprocessing
from mobilezoo_export.conventions import summary
from mobilezoo_export.metadata import INPUT
from mobilezoo_export.records import ExportSpec

ENTRY = "TFLITE_METADATA"
"""Name of the entry in the flatbuffer."""
IDENTIFIER, PARSER = b"M001", "1.0.0"
"""Of the schema, and the oldest parser that knows all that is written here."""
LABELS = "labels.txt"
AXIS_LABELS, NORMALIZATION, FEATURE, IMAGE = 2, 1, 1, 2
"""`AssociatedFileType`, `ProcessUnitOptions` and `ContentProperties` of the schema."""
COLOR_SPACES = {1: 2, 3: 1}
"""Channels → `ColorSpaceType`: grey, RGB; others have none."""
ALIGNMENT = 16
"""Of a buffer's bytes, `force_align` in TFLite's schema."""

BUFFERS_FIELD = 4
"""Number of `buffers` in TFLite's `Model`."""

Field = tuple[str, int, Any]
"""(kind, number, value); kinds: offset, uint32, uint8."""


def pack_metadata(spec: ExportSpec) -> bytes:
    """Writes the metadata of a file as a flatbuffer; equal specs give equal bytes.

    The input is normalized by (pixel - mean) / std on pixels 0..255, which for files of uint8 images is (0, 1): they
    normalize inside. The output has no score calibration.

    Args:
        spec: what was exported.
    """
    from flatbuffers import Builder

    b = Builder(1024)
    outputs = _vector(b, [_output(b, spec)])
    inputs = _vector(b, [_input(b, spec)])
    graph = _table(b, 10, [("offset", 2, inputs), ("offset", 3, outputs)])
    graphs, license = _vector(b, [graph]), spec.origin.license if spec.origin else ""
    texts = {0: spec.model, 1: summary(spec), 5: license, 7: PARSER}
    strings: list[Field] = [("offset", number, b.CreateString(text)) for number, text in texts.items() if text]
    b.Finish(_table(b, 8, [*strings, ("offset", 3, graphs)]), IDENTIFIER)
    return bytes(b.Output())


def label_archive(labels: Sequence[str], start: int) -> bytes:
    """A zip archive of the labels, one per line, as it stands behind `start` bytes of a file.

    Args:
        labels: names in the order of the outputs; a line break inside one becomes a space.
        start: bytes of the file before it.

    Returns:
        The archive; empty without labels. Its dates are fixed, so that equal labels give equal bytes.
    """
    if not labels:
        return b""
    lines = "".join(" ".join(label.splitlines()) + "\n" for label in labels)
    whole = io.BytesIO(bytes(start))
    whole.seek(0, io.SEEK_END)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:  # readers on phones take stored files only
        entry = zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0))
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, lines.encode())
    return whole.getvalue()[start:]


def finish_file(path: Path, labels: Sequence[str]) -> None:
    """Completes a file that has the entry: its bytes inside the flatbuffer, the labels behind everything.

    Quantized files keep buffers behind the flatbuffer, where readers of metadata do not look: the entry's buffer is
    replaced by one that is appended and points to its bytes. All other buffers keep their offsets.

    Args:
        path: a LiteRT file with the entry of `pack_metadata`.
        labels: names in the order of the outputs.
    """
    data = bytearray(path.read_bytes())
    _move_inside(data)
    data += label_archive(labels, len(data))
    path.write_bytes(data)


def _move_inside(data: bytearray) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    index = next(entry.Buffer() for entry in entries if entry.Name() == ENTRY.encode())
    buffer = model.Buffers(index)
    if buffer.DataLength():
        return
    content = bytes(data[buffer.Offset() : buffer.Offset() + buffer.Size()])
    data += bytes(-len(data) % ALIGNMENT)
    start = len(data)
    # The table of fields (6 bytes: its size, the object's size, the place of `data`), 2 bytes between, the object
    # (where its table is, where its bytes are), 12 bytes between, the number of bytes, the bytes at a multiple of 16.
    for number, size in ((6, 2), (8, 2), (4, 2), (0, 2), (8, 4), (16, 4), (0, 12), (len(content), 4)):
        data += number.to_bytes(size, "little")
    data += content
    field = 4 + 2 * BUFFERS_FIELD
    place = model._tab.Vector(model._tab.Offset(field)) + 4 * index
    data[place : place + 4] = (start + 8 - place).to_bytes(4, "little")


def _input(b: Any, spec: ExportSpec) -> int:
    """TensorMetadata of the image."""
    prep = spec.preprocessing.for_channels(spec.in_chans)
    mean, std = _normalization(prep, spec)
    numbers = [_floats(b, values) for values in (mean, std)]
    options = _table(b, 2, [("offset", 0, numbers[0]), ("offset", 1, numbers[1])])
    units = _vector(b, [_table(b, 2, [("uint8", 0, NORMALIZATION), ("offset", 1, options)])])
    axes = ("height", "width", "channels") if spec.options.layout == "NHWC" else ("channels", "height", "width")
    dimensions = _vector(b, [b.CreateString(axis) for axis in ("batch", *axes)])
    fields: list[Field] = [
        ("offset", 0, b.CreateString(INPUT)),
        ("offset", 1, b.CreateString(f"Image: {prep.rule(spec.resolution)}")),
        ("offset", 2, dimensions),
        ("offset", 3, _content(b, spec)),
        ("offset", 4, units),
    ]
    smallest, largest = (_floats(b, [(p - m) / s for m, s in zip(mean, std, strict=True)]) for p in (0, 255))
    fields.append(("offset", 5, _table(b, 2, [("offset", 0, largest), ("offset", 1, smallest)])))
    return _table(b, 7, fields)


def _normalization(prep: Preprocessing, spec: ExportSpec) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels 0..255 that whoever feeds the file has to apply."""
    if spec.options.image:
        return [0.0] * spec.in_chans, [1.0] * spec.in_chans
    return [255 * value for value in prep.mean], [255 * value for value in prep.std]


def _content(b: Any, spec: ExportSpec) -> int:
    """Content of the input: an image where the schema has its colors, else a feature."""
    colors = COLOR_SPACES.get(spec.in_chans)
    if colors is None:
        return _properties(b, FEATURE, _table(b, 0, []))
    height, width = spec.resolution
    size = _table(b, 2, [("uint32", 0, width), ("uint32", 1, height)])
    image = _table(b, 2, [("uint8", 0, colors), ("offset", 1, size)])
    return _properties(b, IMAGE, image)


def _properties(b: Any, kind: int, table: int) -> int:
    """Content whose union holds `table`."""
    return _table(b, 3, [("uint8", 0, kind), ("offset", 1, table)])


def _output(b: Any, spec: ExportSpec) -> int:
    """TensorMetadata of the scores, with the labels' file where there are names."""
    name = "boxes" if spec.task == "detect" else "probability" if spec.options.softmax else "logit"
    fields: list[Field] = [
        ("offset", 0, b.CreateString(name)),
        ("offset", 1, b.CreateString(spec.answers[0].upper() + spec.answers[1:])),
        ("offset", 3, _properties(b, FEATURE, _table(b, 0, []))),
    ]
    if spec.options.softmax:
        one, zero = _floats(b, [1.0]), _floats(b, [0.0])
        fields.append(("offset", 5, _table(b, 2, [("offset", 0, one), ("offset", 1, zero)])))
    if spec.labels and spec.task != "detect":  # its last axis holds sides as well
        texts: list[Field] = [("offset", 0, b.CreateString(LABELS)), ("offset", 1, b.CreateString("Names of classes"))]
        fields.append(("offset", 6, _vector(b, [_table(b, 5, [*texts, ("uint8", 2, AXIS_LABELS)])])))
    return _table(b, 7, fields)


# ---- flatbuffers ----------------------------------------------------------------------------------------------------


def _table(b: Any, fields: int, values: Sequence[Field]) -> int:
    """A table of so many fields; what is no offset is written behind what needs more alignment."""
    write: dict[str, Callable[[int, Any, int], None]] = {
        "offset": b.PrependUOffsetTRelativeSlot,
        "uint32": b.PrependUint32Slot,
        "uint8": b.PrependUint8Slot,
    }
    b.StartObject(fields)
    for kind, number, value in values:
        write[kind](number, value, 0)
    return int(b.EndObject())


def _vector(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _floats(b: Any, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return int(b.EndVector())
