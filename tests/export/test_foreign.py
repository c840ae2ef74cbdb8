"""Files that others made: described from themselves alone, fed in their own types, damaged ones refused in one line."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mobilezoo.artifacts import Quantization, record_path
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo_export import ExportResult, FileApart, load_runner, open_artifact
from mobilezoo_export.feeding import image_input, noise_for
from mobilezoo_export.packs import read_file_metadata
from mobilezoo_export.records import TensorSpec
from mobilezoo_export.registry import start_runner

onnx = pytest.importorskip("onnx")


def onnx_file(path: Path, shape: list[int | str], dtype: str = "FLOAT", inputs: int = 1, **told: str) -> Path:
    """The mean over rows and columns, in a network that others exported."""
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, dtype)
    axes = list(range(2, len(shape))) if shape[1] in (1, 3) else [1, 2]
    values = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)]
    cast = [helper.make_node("Cast", [f"x{i}"], [f"f{i}"], to=TensorProto.FLOAT) for i in range(inputs)]
    total = [helper.make_node("Sum", [f"f{i}" for i in range(inputs)], ["sum"])]
    steps = [*cast, *total, helper.make_node("ReduceMean", ["sum", "axes"], ["scores"], keepdims=0)]
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 3])
    axes_value = helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)
    graph = helper.make_graph(steps, "g", values, [out], [axes_value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, value in told.items():
        model.metadata_props.add(key=key.replace("__", "."), value=value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "sizes"),
    [
        ([1, 3, 8, 10], "FLOAT", "NCHW", (1, 3, 8, 10)),
        ([1, 8, 10, 3], "FLOAT", "NHWC", (1, 8, 10, 3)),
        (["batch", 3, 8, 8], "FLOAT16", "NCHW", (1, 3, 8, 8)),
        (["n", "h", "w", 3], "UINT8", "NHWC", (1, 224, 224, 3)),
        (["n", 3, "h", "w"], "FLOAT", "NCHW", (1, 3, 224, 224)),
    ],
)
def test_images_of_any_layout_and_type_give_the_same_scores(shape, dtype, layout, sizes, tmp_path):
    path = onnx_file(tmp_path / "theirs.onnx", shape, dtype)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 10)).astype(np.float32) / 255
    with FileApart(path) as opened:
        record = opened.artifact
        assert (record.input.layout, record.input.shape) == (layout, sizes)
        assert record.foreign
        assert record.parity is None
        assert record.why_not_runnable == "not proven here"
        assert record.undeclared == ("preprocessing", *(["resolution"] if "h" in shape else []), "output")
        height, width = record.input.resolution
        fed = images[:, :, :8, :10] if (height, width) == (8, 10) else np.resize(images, (2, 3, height, width))
        scores = opened.run(fed)
    # Bytes without a scale of their own are pixels 0..255.
    expected = fed.mean((2, 3)) * (255 if dtype == "UINT8" else 1)
    assert np.allclose(scores, expected, atol=0.3 if dtype == "UINT8" else 2e-3)


def test_noise_has_each_inputs_type_and_range():
    tensors = (
        TensorSpec(name="a", shape=(2, 500), dtype="float16"),
        TensorSpec(name="b", shape=(9999,), dtype="uint8"),
        TensorSpec(name="c", shape=(9999,), dtype="int8"),
        TensorSpec(name="d", shape=(64,), dtype="int64"),
        TensorSpec(name="e", shape=(64,), dtype="bool"),
        TensorSpec(name="f", shape=(), dtype="float32"),
    )
    values = noise_for(tensors)
    assert [v.dtype.name for v in values] == [t.dtype for t in tensors]
    assert [v.shape for v in values] == [t.shape for t in tensors]
    assert 0.9 < values[0].std() < 1.1
    assert (values[1].min(), values[1].max()) == (0, 255)
    assert (values[2].min(), values[2].max()) == (-128, 127)
    assert set(values[3].tolist()) == {0, 1}
    with pytest.raises(ExportError, match="'words' holds str"):
        noise_for([TensorSpec(name="words", shape=(1,), dtype="str")])


def test_files_with_other_inputs_are_described_and_fed_with_noise_but_take_no_image(tmp_path):
    path = onnx_file(tmp_path / "two.onnx", [1, 3, 8, 8], inputs=2)
    runner = load_runner(path)
    assert runner.input.layout == "none"
    runner.feed(noise_for(runner.inputs))
    runner.invoke()
    assert runner.output().shape == (1, 3)
    with (
        FileApart(path) as opened,
        pytest.raises(ExportError, match=r"two\.onnx.*x0 \(float32 1×3×8×8\), x1.*no single"),
    ):
        opened.run(np.zeros((1, 3, 8, 8), np.float32))


def test_a_size_that_cannot_be_known_is_refused(tmp_path):
    path = onnx_file(tmp_path / "open.onnx", ["n", 3, "length"])
    with pytest.raises(ExportError, match=r"open\.onnx.*axis 2 of an input with 3 axes open"):
        open_artifact(path)


def test_quantized_inputs_keep_their_scale_and_the_habit_decides_between_layouts():
    how = Quantization(dtype="int8", scale=0.5, zero_point=-3)
    spec = image_input([TensorSpec(name="x", shape=(1, 3, 3, 3), dtype="int8", quantization=how)], "NHWC")
    assert (spec.layout, spec.quantization) == ("NHWC", how)
    assert image_input([TensorSpec(name="x", shape=(1, 4, 9, 9), dtype="float32")], "NHWC").layout == "NCHW"
    assert image_input([TensorSpec(name="x", shape=(1, 28, 28), dtype="uint8")], "NHWC").layout == "none"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('["cat", "dog", "eel"]', ("cat", "dog", "eel")),
        ("{0: 'cat', 1: 'dog', 2: 'eel'}", ("cat", "dog", "eel")),
        ("cat\ndog\neel\n", ("cat", "dog", "eel")),
        ("cat, dog,eel", ("cat", "dog", "eel")),
        ("one", ()),
        ("[" * 5000, ()),
    ],
)
def test_onnx_properties_tell_labels_and_pixel_range(text, labels, tmp_path):
    told = {"Image__NominalPixelRange": "Normalized_1_1", "Image__BitmapPixelFormat": "Rgb8", "names": text}
    record = open_artifact(onnx_file(tmp_path / "told.onnx", [1, 3, 8, 8], **told))
    assert record.labels == labels
    assert record.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "preprocessing" not in record.undeclared
    with pytest.raises(ExportError, match="order Bgr8"):
        read_file_metadata(onnx_file(tmp_path / "bgr.onnx", [1, 3, 8, 8], Image__BitmapPixelFormat="Bgr8"))


@pytest.fixture(scope="module")
def exported(tiny_file: Callable[[str], ExportResult]) -> dict[str, Path]:
    return {target: Path(str(tiny_file(target).path)) for target in ("onnx", "litert", "coreml", "executorch")}


@pytest.mark.nightly
def test_files_that_lost_their_record_tell_what_their_metadata_holds(exported, tiny_spec, tmp_path):
    for target, source in exported.items():
        lost = tmp_path / source.name
        shutil.copytree(source, lost) if source.is_dir() else shutil.copy(source, lost)
        record, ours = open_artifact(lost), open_artifact(source)
        assert record.foreign
        assert not ours.foreign
        told = ("target", "input", "labels", "preprocessing", "sha256")
        assert {name: getattr(record, name) for name in told} == {name: getattr(ours, name) for name in told}, target
        images = np.random.default_rng(0).standard_normal((3, *tiny_spec.shape[1:]), dtype=np.float32)
        theirs, own = start_runner(lost, record), load_runner(source)
        assert np.array_equal(theirs.run(images), own.run(images)), target


def damaged(source: Path, folder: Path) -> list[Path]:
    """Copies of a file: empty, cut, other bytes, flipped bits (seeded), text, and a folder or file in its place."""
    rng = np.random.default_rng(0)
    weights = next(p for p in sorted(source.rglob("*.bin"))) if source.is_dir() else source
    data = weights.read_bytes()
    flips = [bytearray(data) for _ in range(6)]
    for number, flipped in enumerate(flips):
        spread = 64 if number % 2 else len(flipped)
        for place in rng.integers(0, spread, 16):
            flipped[place] ^= 1 << int(rng.integers(8))
    contents = [
        b"",
        data[:7],
        data[: len(data) // 2],
        b"not a model" * 40,
        bytes(len(data)),
        b"PK\3\4" + data[4:],
        *flips,
    ]
    made = []
    for number, content in enumerate(contents):
        path = folder / f"{number}{source.suffix}"
        if source.is_dir():
            shutil.copytree(source, path)
            (path / weights.relative_to(source)).write_bytes(bytes(content))
        else:
            path.write_bytes(bytes(content))
        made.append(path)
    swapped = folder / f"swapped{source.suffix}"
    swapped.write_bytes(b"file") if source.is_dir() else swapped.mkdir()
    return [*made, swapped]


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["onnx", "litert", "coreml", "executorch"])
def test_damaged_files_run_or_are_one_line(target, exported, tmp_path):
    refused = 0
    for path in damaged(exported[target], tmp_path):
        said = ""
        try:
            with FileApart(path) as opened:
                assert opened.run(np.zeros((1, 3, 14, 14), np.float32)).shape[0] == 1
        except MobilezooError as error:
            said = str(error)
        refused += bool(said)
        assert "\n" not in said
        assert not said or path.name in said, said
    assert refused >= (5 if target != "coreml" else 1)


@pytest.mark.slow
def test_a_runtime_that_aborts_is_one_line_with_the_file(exported, tmp_path, monkeypatch):
    from mobilezoo_export import apart

    path = tmp_path / "abort.pte"
    shutil.copy(exported["executorch"], path)
    program = "import os, sys; sys.stdin.readline(); os.abort()"
    monkeypatch.setattr(apart, "COMMAND", [apart.COMMAND[0], "-c", program])
    with pytest.raises(ExportError, match=r"'abort\.pte' cannot be run: the runtime ended with SIGABRT"):
        open_artifact(path)


# ---- real files -----------------------------------------------------------------------------------------------------


def test_tflite_metadata_packs_are_read(shared):
    path = shared / "foreign" / "tflite" / "coral_mobilenet_v2_1.0_224_quant.tflite"
    record = open_artifact(path)
    assert record.preprocessing.mean == record.preprocessing.std == (0.5, 0.5, 0.5)
    assert (len(record.labels), record.labels[0]) == (1001, "background")
    assert record.input.quantization == Quantization(dtype="uint8", scale=0.0078125, zero_point=128)
    assert record.output_quantization == Quantization(dtype="uint8", scale=0.00390625, zero_point=0)


def test_a_custom_operator_is_named(shared):
    path = shared / "foreign" / "tflite" / "coral_invalid_model_invoking_error.tflite"
    with pytest.raises(ExportError, match="custom op: fake-op-double"):
        open_artifact(path)


def test_a_pack_whose_archive_is_damaged_is_one_line(shared, tmp_path):
    source = shared / "foreign" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite"
    data = source.read_bytes()
    start = data.index(b"PK\3\4")
    path = tmp_path / "damaged.tflite"
    path.write_bytes(data[: start + 60] + bytes(40) + data[start + 100 :])
    assert zipfile.is_zipfile(path)
    with pytest.raises(ExportError, match=r"damaged\.tflite.*metadata"):
        open_artifact(path)


def test_a_record_that_is_of_another_file_is_an_error_and_never_foreign(exported, tmp_path):
    path = tmp_path / "x.onnx"
    shutil.copy(exported["onnx"], path)
    record_path(path).write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(MobilezooError, match=r"x\.onnx\.json"):
        open_artifact(path)


@pytest.mark.nightly
def test_core_ml_files_with_two_outputs_are_read_at_the_one_that_fits_and_classifiers_know_names(tmp_path):
    ct = pytest.importorskip("coremltools")
    import torch

    class Two(nn.Module):
        def forward(self, x_bchw):
            return x_bchw.amax((2, 3)).sum(1, keepdim=True) * torch.ones(1, 5), x_bchw.mean((2, 3)).softmax(-1)

    class One(nn.Module):
        def forward(self, x_bchw):
            return x_bchw.mean((2, 3)).softmax(-1)

    def saved(network, path, **more):
        program = torch.export.export(network.eval(), (torch.zeros(1, 3, 8, 8),)).run_decompositions({})
        ct.convert(program, convert_to="mlprogram", skip_model_load=True, **more).save(str(path))
        return path

    images = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    means = images.mean((2, 3))
    expected = np.exp(means) / np.exp(means).sum()
    for record in (
        open_artifact(saved(Two(), tmp_path / "two.mlpackage"), labels=3),
        open_artifact(saved(One(), tmp_path / "one.mlpackage", classifier_config=ct.ClassifierConfig(["a", "b", "c"]))),
    ):
        assert (record.output, "scores" in record.undeclared) == ("probabilities", False)
        with FileApart(tmp_path / record.path, record) as opened:
            assert np.allclose(opened.run(images), expected, atol=2e-3)
    assert record.labels == ("a", "b", "c")
