"""What files declare in the conventions of their own formats, read back by the readers of these formats.

TFLite's official schema is read by the numbers of its fields, and by its generated classes where `mediapipe` or
`tflite-support` is installed.
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Origin, load_record_of
from mobilezoo.files import sha256_of, size_of
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.testing.targets import SmallNet, export_files
from mobilezoo_export import ExportOptions, ExportResult, ExportSpec, load_runner, packs
from mobilezoo_export.conventions import onnx_properties
from mobilezoo_export.flat_table import FlatTable
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.tflite_metadata import ENTRY, LABELS, finish_file, label_archive, pack_metadata

ORIGIN = Origin(name="tiny.in1k", address="https://example.org/tiny", sha256=None, license="Apache-2.0")


def root_of(pack: bytes) -> Any:
    """The root table of a pack, read by the numbers of the schema's fields."""
    assert pack[4:8] == b"M001"
    return FlatTable(pack, int.from_bytes(pack[:4], "little"))


def changed(spec: ExportSpec, **options: Any) -> ExportSpec:
    """The spec with other options, and other fields."""
    fields = {key: options.pop(key) for key in ("labels", "in_chans", "origin") if key in options}
    return spec.model_copy(update={**fields, "options": ExportOptions(**options)})


def test_the_pack_holds_normalization_labels_and_no_calibration(tiny_spec: ExportSpec) -> None:
    root = root_of(pack_metadata(changed(tiny_spec, origin=ORIGIN)))
    assert (root.text(0), root.text(5), root.text(7)) == ("tiny", "Apache-2.0", "1.0.0")
    (graph,) = root.tables(3)
    (image,), (scores,) = graph.tables(2), graph.tables(3)
    assert image.text(0) == "image"
    assert image.table(3).byte(0) == 2, "ImageProperties"
    assert image.table(3).table(1).byte(0) == 1, "RGB"
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1, "NormalizationOptions"
    np.testing.assert_allclose(unit.table(1).floats(0), [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(unit.table(1).floats(1), [58.395, 57.12, 57.375], rtol=1e-6)
    np.testing.assert_allclose(image.table(5).floats(1), [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    assert scores.text(0) == "logit"
    assert scores.tables(4) == [], "no score calibration"
    assert scores.table(5) is None, "logits have no limits"
    (file,) = scores.tables(6)
    assert (file.text(0), file.byte(2)) == (LABELS, 2)


@pytest.mark.parametrize(
    ("options", "colors", "mean", "labelled", "name"),
    [
        ({"image": True, "softmax": True}, 1, [0, 0, 0], True, "probability"),
        ({"labels": ()}, 1, [123.675, 116.28, 103.53], False, "logit"),
        ({"labels": ("no", "yes")}, 1, [123.675, 116.28, 103.53], True, "logit"),
        ({"in_chans": 1}, 2, [255 * (0.485 + 0.456 + 0.406) / 3], True, "logit"),
        ({"in_chans": 4}, None, [123.675, 116.28, 103.53, 114.495], True, "logit"),
    ],
)
def test_packs_of_other_files(
    options: dict[str, Any], colors: int | None, mean: list[float], labelled: bool, name: str, tiny_spec: ExportSpec
) -> None:
    spec = changed(tiny_spec, **options)
    assert pack_metadata(spec) == pack_metadata(spec)
    (graph,) = root_of(pack_metadata(spec)).tables(3)
    (image,), (scores,) = graph.tables(2), graph.tables(3)
    content = image.table(3)
    assert (content.table(1).byte(0) if content.byte(0) == 2 else None) == colors
    np.testing.assert_allclose(image.tables(4)[0].table(1).floats(0), mean, rtol=1e-6)
    assert bool(scores.tables(6)) == labelled
    assert scores.text(0) == name
    assert (scores.table(5) is not None) == (name == "probability")


def official_schema() -> Any:
    """TFLite's generated classes of the metadata schema, without the package around them."""
    places = {"mediapipe": "tasks/metadata", "tensorflow_lite_support": "metadata"}
    found = [(one, folder) for name, folder in places.items() if (one := importlib.util.find_spec(name)) is not None]
    if not found or found[0][0].origin is None:
        pytest.skip("TFLite's own classes of the schema need `pip install --no-deps mediapipe` or `tflite-support`")
    path = Path(found[0][0].origin).parent / found[0][1] / "metadata_schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("metadata_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_official_classes_read_the_pack(tiny_spec: ExportSpec) -> None:
    schema = official_schema()
    pack = bytearray(pack_metadata(changed(tiny_spec, softmax=True, origin=ORIGIN)))
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(pack, 0)
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(pack, 0))
    (image,), (scores,) = found.subgraphMetadata[0].inputTensorMetadata, found.subgraphMetadata[0].outputTensorMetadata
    assert image.dimensionNames == [b"batch", b"height", b"width", b"channels"]
    size = image.content.contentProperties.defaultSize
    assert (size.width, size.height) == (14, 14)
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    np.testing.assert_allclose(image.processUnits[0].options.mean, [123.675, 116.28, 103.53], rtol=1e-6)
    assert scores.associatedFiles[0].type == schema.AssociatedFileType.TENSOR_AXIS_LABELS
    assert scores.processUnits is None
    assert list(scores.stats.max) == [1.0]


def test_labels_stand_behind_the_file_the_same_way_each_time(tmp_path: Path) -> None:
    labels = ("cat", "a\ndog", "käse")
    path = tmp_path / "x.tflite"
    path.write_bytes(b"x" * 1001 + label_archive(labels, 1001))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [LABELS]
        assert archive.getinfo(LABELS).compress_type == zipfile.ZIP_STORED
        assert archive.getinfo(LABELS).header_offset == 1001, "counted from the file's first byte"
        assert archive.read(LABELS).decode() == "cat\na dog\nkäse\n"
    assert label_archive(labels, 1001) == label_archive(labels, 1001)
    assert label_archive((), 1001) == b""


def test_an_entry_behind_the_flatbuffer_is_moved_inside(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    """As the quantizer leaves it: the buffer names an offset and a size, and holds nothing."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, empty, buffer, entry = schema.ModelT(), schema.BufferT(), schema.BufferT(), schema.MetadataT()
    buffer.offset = buffer.size = 1  # replaced below
    entry.name, entry.buffer = ENTRY, 1
    model.version, model.buffers, model.metadata = 3, [empty, buffer], [entry]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    data, pack = bytearray(builder.Output()), pack_metadata(tiny_spec)
    table = schema.Model.GetRootAs(data, 0).Buffers(1)._tab
    for slot, value in ((6, len(data)), (8, len(pack))):
        place = table.Pos + table.Offset(slot)
        data[place : place + 8] = value.to_bytes(8, "little")
    path = tmp_path / "x.tflite"
    path.write_bytes(data + pack)
    finish_file(path, tiny_spec.labels)
    found = schema.Model.GetRootAs(path.read_bytes(), 0)
    assert found.BuffersLength() == 2
    assert bytes(found.Buffers(1).DataAsNumpy()) == pack
    assert packs.from_litert(path).labels == tiny_spec.labels
    assert path.read_bytes().startswith(data[:4])
    start = found.Buffers(1)._tab.Vector(found.Buffers(1)._tab.Offset(4))
    assert start % 16 == 0, "aligned as the schema demands"


def check_litert(result: ExportResult, spec: ExportSpec) -> None:
    """Both metadata, the labels and the record of a file agree with what was exported."""
    assert result.path is not None, result.reason
    path = Path(result.path)
    record = load_record_of(Artifact, path)
    assert (record.sha256, record.size_bytes) == (sha256_of(path), size_of(path))
    assert packs._pack_of(path) == pack_metadata(spec), "inside the flatbuffer, where official readers look"
    theirs = packs.from_litert(path)
    assert theirs.labels == spec.labels
    assert theirs.preprocessing is not None
    expected = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3) if spec.options.image else spec.preprocessing
    np.testing.assert_allclose(theirs.preprocessing.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(theirs.preprocessing.std, expected.std, rtol=1e-6)
    assert read_metadata(path)["labels"] == list(spec.labels)
    assert packs.read_file_metadata(path).preprocessing == spec.preprocessing, "our own entry comes first"


def test_a_litert_file_has_both(tiny_file: Callable[[str], ExportResult], tiny_spec: ExportSpec) -> None:
    check_litert(tiny_file("litert"), tiny_spec)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int8", {}),
        ("int8", {"int8_io": True, "softmax": True}),
        ("w8a16", {}),
        ("fp16", {"image": True, "softmax": True}),
        ("int8-dynamic", {"labels": ()}),
        ("fp32", {"flexible": "batch"}),
    ],
)
def test_every_kind_of_litert_file_has_both_runs_and_repeats(
    precision: str, options: dict[str, Any], tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    spec = changed(tiny_spec, **options).model_copy(update={"precision": precision})
    network = SmallNet() if spec.options.flexible != "none" else tiny  # LiteRT cannot resize the other one
    images = sample_images(spec, 16, seed=1)
    hashes = set()
    for folder in ("a", "b"):
        (result,) = export_files(network, spec, ["litert"], [precision], tmp_path / folder, calibration=[images])
        check_litert(result, spec)
        hashes.add(sha256_of(Path(str(result.path))))
    assert len(hashes) == 1
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert (load_runner(str(result.path)).run(images).argmax(-1) == expected.argmax(-1)).mean() > 0.8


def test_an_onnx_file_names_its_pixels_and_axes(
    tiny_file: Callable[[str], ExportResult], tiny_spec: ExportSpec
) -> None:
    import onnx

    proto = onnx.load(str(tiny_file("onnx").path))
    onnx.checker.check_model(proto, full_check=True)
    told = {p.key: p.value for p in proto.metadata_props}
    assert told["Image.BitmapPixelFormat"] == "Rgb8"
    assert "Image.NominalPixelRange" not in told, "it has no word for this normalization"
    assert json.loads(told["labels"]) == list("abcdefghij")
    assert json.loads(told["mobilezoo"])["labels"] == list("abcdefghij")
    kind = proto.graph.input[0].type
    assert kind.denotation == "IMAGE"
    axes = [axis.denotation for axis in kind.tensor_type.shape.dim]
    assert axes == ["DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE"]


@pytest.mark.parametrize(
    ("mean", "std", "image", "word"),
    [(0.5, 0.5, False, "Normalized_1_1"), (0.0, 1.0, False, "Normalized_0_1"), (0.4, 0.2, True, "NominalRange_0_255"),
     (0.4, 0.2, False, None)],
)  # fmt: skip
def test_onnx_ranges(mean: float, std: float, image: bool, word: str | None, tiny_spec: ExportSpec) -> None:
    prep = Preprocessing(mean=(mean,) * 3, std=(std,) * 3)
    spec = changed(tiny_spec, image=image, origin=ORIGIN).model_copy(update={"preprocessing": prep})
    told = onnx_properties(spec)
    assert told.get("Image.NominalPixelRange") == word
    assert told["model_license"] == "Apache-2.0"


@pytest.mark.nightly
def test_int8_onnx_files_keep_them(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import onnx

    images = sample_images(tiny_spec, 8, seed=1)
    for result in export_files(tiny, tiny_spec, ["onnx"], ["int8", "fp16"], tmp_path, calibration=[images]):
        assert result.path is not None, result.reason
        proto = onnx.load(result.path)
        assert json.loads({p.key: p.value for p in proto.metadata_props}["labels"]) == list("abcdefghij")


@pytest.mark.nightly
def test_a_core_ml_classifier_of_images_has_a_preview(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import coremltools as ct

    spec = changed(tiny_spec, image=True, softmax=True, classifier=True, origin=ORIGIN)
    (result,) = export_files(tiny, spec, ["coreml"], ["fp32"], tmp_path / "classifier")
    described = ct.models.MLModel(str(result.path), skip_model_load=True)
    assert described.user_defined_metadata["com.apple.coreml.model.preview.type"] == "imageClassifier"
    assert json.loads(described.user_defined_metadata["labels"]) == list("abcdefghij")
    assert described.license == "Apache-2.0"
    assert "10 classes" in described.short_description
    assert "normalized inside" in described.input_description["image"]
    (plain,) = export_files(tiny, tiny_spec, ["coreml"], ["fp32"], tmp_path / "plain")
    described = ct.models.MLModel(str(plain.path), skip_model_load=True)
    assert "com.apple.coreml.model.preview.type" not in described.user_defined_metadata
    assert described.output_description["logits"] == "a logit for each class"
    assert packs.from_coreml(Path(str(plain.path))).labels == tiny_spec.labels


@pytest.mark.nightly
def test_an_executorch_program_answers_what_it_takes(
    tiny_file: Callable[[str], ExportResult], tiny_spec: ExportSpec
) -> None:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(Path(str(tiny_file("executorch").path)))

    def answer(name: str) -> list[Any]:
        method = program.load_method(name)
        assert method is not None
        return list(method.execute([]))

    assert answer("get_mean") == list(tiny_spec.preprocessing.mean)
    assert answer("get_std") == list(tiny_spec.preprocessing.std)
    assert answer("get_image_size") == [14, 14]
    assert answer("get_output_kind") == ["logits"]
    assert json.loads(answer("get_labels")[0]) == list("abcdefghij")
