"""Files made for apps take pixels, give probabilities and describe both; the same input gives the same bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Quantization
from mobilezoo.files import sha256_of
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportResult, ExportSpec, load_runner, packs
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import build_metadata, metadata_text, read_metadata
from mobilezoo_export.pixels import to_normalized, to_pixels
from mobilezoo_export.records import Borders

TARGETS = [
    "onnx",
    "litert",
    pytest.param("coreml", marks=pytest.mark.nightly),
    pytest.param("executorch", marks=pytest.mark.nightly),
]


def test_pixels_come_back_from_normalized_images(tiny_spec: ExportSpec) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    assert np.array_equal(to_pixels(to_normalized(pixels, tiny_spec.preprocessing), tiny_spec.preprocessing), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_pixels_go_in_and_probabilities_come_out(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, target: str
) -> None:
    spec = tiny_spec.model_copy(update={"options": ExportOptions(image=True, softmax=True)})
    (result,) = export_files(tiny, spec, [target], ["fp32"], tmp_path)
    assert result.path is not None, result.reason
    assert result.artifact is not None
    assert result.artifact.input.dtype == "uint8"
    assert result.artifact.parity is not None
    assert result.artifact.parity.relative < 1e-3
    images = sample_images(spec, 5, seed=3)
    with torch.no_grad():
        expected = tiny(torch.from_numpy(images)).softmax(-1).numpy()
    got = load_runner(result.path).run(images)
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-3)
    assert read_metadata(Path(result.path)) == build_metadata(spec, result.artifact.input.layout)


@pytest.mark.parametrize("target", ["onnx", pytest.param("litert", marks=pytest.mark.slow), *TARGETS[2:]])
def test_the_same_network_gives_the_same_bytes(
    tiny: nn.Module,
    tiny_file: Callable[[str], ExportResult],
    tiny_spec: ExportSpec,
    tmp_path: Path,
    target: str,
) -> None:
    hashes = set()
    for result in (tiny_file(target), *export_files(tiny, tiny_spec, [target], ["fp32"], tmp_path)):
        assert result.path is not None, result.reason
        assert read_metadata(Path(result.path))["output"] == "logits"
        hashes.add(sha256_of(Path(result.path)))
    assert len(hashes) == (2 if target == "coreml" else 1)  # coremltools names the package's items by fresh UUIDs


@pytest.mark.slow
@pytest.mark.parametrize("int8_io", [True, False])
def test_int8_files_may_take_and_give_int8(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, int8_io: bool
) -> None:
    spec = tiny_spec.model_copy(update={"options": ExportOptions(int8_io=int8_io)})
    images = [sample_images(spec, 16, seed=1)]
    (result,) = export_files(tiny, spec, ["litert"], ["int8"], tmp_path, calibration=images)
    assert result.path is not None, result.reason
    assert result.artifact is not None
    kind = "int8" if int8_io else "float32"
    assert result.artifact.input.dtype == kind
    assert read_metadata(Path(result.path))["precision"] == "int8"
    runner = load_runner(result.path)
    assert runner.inputs[0].dtype == runner.outputs[0].dtype == kind
    with torch.no_grad():
        expected = tiny(torch.from_numpy(images[0])).numpy()
    assert (runner.run(images[0]).argmax(-1) == expected.argmax(-1)).mean() > 0.8


@pytest.mark.parametrize(
    ("softmax", "precision"),
    [
        (True, "int8"),
        pytest.param(False, "int8", marks=pytest.mark.slow),
        pytest.param(True, "w8a16", marks=pytest.mark.slow),
        pytest.param(False, "w8a16", marks=pytest.mark.slow),
    ],
)
def test_an_app_that_follows_the_metadata_of_an_integer_file_gets_the_files_own_answer(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, softmax: bool, precision: str
) -> None:
    """Pixels 0..255 → integers → answer in NumPy by the metadata alone, against the runner's own way."""
    from ai_edge_litert.interpreter import Interpreter

    spec = tiny_spec.model_copy(update={"options": ExportOptions(int8_io=True, softmax=softmax)})
    images = sample_images(spec, 16, seed=1)
    limits = np.iinfo("int8" if precision == "int8" else "int16")
    (result,) = export_files(tiny, spec, ["litert"], [precision], tmp_path, calibration=[sample_images(spec)])
    assert result.path is not None, result.reason
    told, record = read_metadata(Path(result.path)), result.artifact
    assert record is not None
    runner = load_runner(result.path)
    assert (record.input.quantization, record.output_quantization) == (
        runner.inputs[0].quantization,
        runner.outputs[0].quantization,
    )
    assert record.input.quantization is not None
    assert record.output_quantization is not None
    assert told["input"]["quantization"] == record.input.quantization.model_dump()
    what = "probability" if softmax else "logit"
    assert told["output_quantization"] == {
        **record.output_quantization.model_dump(),
        "formula": f"{what} = (q - zero_point) * scale",
    }
    clipped = f"clipped to {limits.min}..{limits.max}"
    assert told["input"]["from_pixels"]["formula"] == f"q = round(pixel * multiplier + offset), {clipped}"
    assert record.input.dtype == limits.dtype.name

    interpreter = Interpreter(model_path=result.path)
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    lines, out = told["input"]["from_pixels"], told["output_quantization"]
    for pixels in to_pixels(images, spec.preprocessing).transpose(0, 2, 3, 1):
        q = np.clip(
            np.round(pixels * np.array(lines["multiplier"]) + np.array(lines["offset"])), limits.min, limits.max
        )
        interpreter.set_tensor(given["index"], q[None].astype(limits.dtype))
        interpreter.invoke()
        mine = (interpreter.get_tensor(answer["index"]).astype(np.float32) - out["zero_point"]) * out["scale"]
        batch = to_normalized(pixels.transpose(2, 0, 1)[None], spec.preprocessing)
        np.testing.assert_allclose(mine, runner.run(batch), atol=1e-6)  # both computed the same integers


def test_metadata_of_integers_holds_both_formulas_and_agrees(tiny_spec: ExportSpec) -> None:
    """The steps one after the other, as the metadata gives them, and the line that goes straight from pixels."""
    how = Quantization(dtype="uint8", scale=0.0203, zero_point=104)
    told = build_metadata(tiny_spec, "NHWC", Borders(input=how, output=None))
    assert "output_quantization" not in told
    assert told["input"]["values"].endswith("+ zero_point, clipped to 0..255")
    pixels = np.arange(256.0)[:, None]
    mean, std = np.array(told["input"]["mean"]), np.array(told["input"]["std"])
    steps = np.clip(np.round((pixels / 255 - mean) / std / how.scale) + how.zero_point, 0, 255)
    line = told["input"]["from_pixels"]
    assert np.array_equal(steps, np.clip(np.round(pixels * line["multiplier"] + line["offset"]), 0, 255))


def test_the_longest_metadata_of_integers_fits_the_room_that_is_kept_for_it(tiny_spec: ExportSpec) -> None:
    from mobilezoo_export.targets.litert import BORDER_METADATA, CHANNEL_METADATA

    for channels in (1, 3, 64):
        spec = tiny_spec.model_copy(update={"in_chans": channels, "options": ExportOptions(softmax=True)})
        how = Quantization(dtype="int16", scale=1.2345678901234567e-05, zero_point=-32768)
        longer = len(metadata_text(spec, "NHWC", Borders(how, how))) - len(metadata_text(spec, "NHWC"))
        assert longer < BORDER_METADATA + CHANNEL_METADATA * channels


@pytest.mark.slow
def test_core_ml_classifiers_answer_with_names(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import coremltools as ct

    options = ExportOptions(image=True, softmax=True, classifier=True)
    spec = tiny_spec.model_copy(update={"options": options})
    (result,) = export_files(tiny, spec, ["coreml"], ["fp32"], tmp_path)
    assert result.path is not None, result.reason
    described = ct.utils.load_spec(result.path).description
    assert described.predictedFeatureName == "classLabel"
    assert described.input[0].type.WhichOneof("Type") == "imageType"
    images = sample_images(spec, 4, seed=3)
    with torch.no_grad():
        expected = tiny(torch.from_numpy(images)).softmax(-1).numpy()
    np.testing.assert_allclose(load_runner(result.path).run(images), expected, atol=2e-4)
    assert packs.from_coreml(Path(result.path)).labels == spec.labels


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"labels": ()}, "one name per class"), ({"labels": ("a", "a")}, "one name per class"), ({}, "softmax=true")],
)
def test_core_ml_classifiers_without_names_or_probabilities_are_refused(
    changed: dict[str, object], reason: str, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    options = ExportOptions(softmax=bool(changed), classifier=True)
    spec = tiny_spec.model_copy(update={"options": options, **changed})
    (result,) = export_files(tiny, spec, ["coreml"], ["fp32"], tmp_path)
    assert result.status == "refused"
    assert reason in result.reason
