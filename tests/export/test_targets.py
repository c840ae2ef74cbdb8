"""The conformance suite: what every target's fp32 file must do. A new target adds one subclass."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mobilezoo.errors import DeviceError
from mobilezoo.testing import TargetConformance
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportResult, ExportSpec, load_exporter, load_runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.tolerances import TOLERANCES


class Conformance(TargetConformance):
    """The shipped suite on the network that all tests of exporters share."""

    @pytest.fixture(scope="class")
    def network(self, tiny: nn.Module) -> nn.Module:
        return tiny

    @pytest.fixture(scope="class")
    def result(self, tiny_file: Callable[[str], ExportResult]) -> ExportResult:
        return tiny_file(self.target)


class TestOnnx(Conformance):
    target = "onnx"


class TestLiteRT(Conformance):
    target = "litert"

    def test_input_is_nhwc_and_no_transpose_stands_at_the_borders(self, result: ExportResult) -> None:
        assert result.path is not None
        runner = load_runner(result.path)
        assert runner.input.layout == "NHWC"
        ops = [detail["op_name"] for detail in runner.interpreter._get_ops_details()]  # type: ignore[attr-defined]
        assert "TRANSPOSE" not in (ops[0], ops[-1])


class TestExecuTorch(Conformance):
    target = "executorch"


@pytest.mark.slow
class TestNcnn(Conformance):
    target = "ncnn"

    def test_it_is_one_folder_of_the_usual_parts_with_named_ends(self, result: ExportResult) -> None:
        assert result.path is not None
        parts = sorted(part.name for part in Path(result.path).iterdir())
        assert parts == ["metadata.json", "model.ncnn.bin", "model.ncnn.param"]
        runner = load_runner(result.path)
        assert runner.inputs[0].name == "image"
        assert read_metadata(Path(result.path))["input"]["layout"] == "NCHW"


NEEDS_COREAI = pytest.mark.skipif(
    importlib.util.find_spec("coreai_torch") is None, reason="no extra 'coreai': pip install 'mobilezoo[coreai]'"
)


@NEEDS_COREAI
@pytest.mark.slow
class TestCoreAI(Conformance):
    target = "coreai"

    def test_it_is_one_folder_of_the_usual_parts_with_named_ends(self, result: ExportResult) -> None:
        assert result.path is not None
        parts = sorted(part.name for part in Path(result.path).iterdir())
        assert parts == ["main.hash", "main.mlirb", "metadata.json"]
        runner = load_runner(result.path)
        assert (runner.inputs[0].name, runner.outputs[0].name) == ("image", "logits")
        assert read_metadata(Path(result.path))["input"]["layout"] == "NCHW"

    def test_what_computed_it_is_named_honestly(self, result: ExportResult) -> None:
        assert result.path is not None
        assert result.artifact is not None
        assert result.artifact.parity is not None
        assert result.artifact.parity.ran_in.startswith("program check")
        assert not load_runner(result.path).measurable


class TestCoreML(Conformance):
    target = "coreml"

    def test_what_computed_it_is_named_honestly(self, result: ExportResult) -> None:
        assert result.artifact is not None
        assert result.artifact.parity is not None
        if sys.platform != "darwin":
            assert result.artifact.parity.ran_in.startswith("program check")
            assert result.path is not None
            assert not load_runner(result.path).measurable


CELLS = {
    "onnx": ("fp16", "int8", "w8a16"),
    "litert": ("fp16", "fp16-weights", "int8-dynamic", "int8", "w8a16"),
    "coreml": ("fp16", "int8", "pal4", "pal6", "w8a8"),
    "executorch": ("fp16", "int8"),
    "ncnn": ("fp16",),
    "coreai": ("fp16", "int8"),
    "qnn": ("fp16", "int8", "w8a16"),
}
MARKS: dict[tuple[str, str], Any] = {("onnx", "int8"): (), ("litert", "int8"): ()}
MARKS |= dict.fromkeys((("coreai", "fp16"), ("coreai", "int8")), (NEEDS_COREAI, pytest.mark.nightly))
SLOW = (("litert", "fp16"), ("coreml", "int8"), ("executorch", "int8"), ("onnx", "w8a16"), ("litert", "w8a16"))
MARKS |= dict.fromkeys(SLOW, pytest.mark.slow)


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param(target, precision, marks=MARKS.get((target, precision), pytest.mark.nightly))
        for target, precisions in CELLS.items()
        for precision in precisions
    ],
)
def test_reduced_precision_is_within_its_tolerance(
    target: str, precision: str, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    try:
        load_exporter(target).require()
    except DeviceError as error:
        pytest.skip(str(error))
    spec = tiny_spec.model_copy(update={"options": ExportOptions(coreml_target="iOS17")})
    calibration = [sample_images(spec)]
    (result,) = export_files(tiny, spec, [target], [precision], tmp_path, calibration=calibration)
    assert result.status == "exported", result.reason
    assert result.artifact is not None
    parity, coverage = result.artifact.parity, result.artifact.coverage
    assert parity is not None
    if precision == "w8a16" and target == "onnx":
        assert "16-bit activations computed in float32" in parity.ran_in
        assert activation_types(Path(str(result.path))) == {"uint16"}
    if precision == "w8a16" and target == "litert":
        assert coverage is not None
        assert coverage.outside is not None
        assert coverage.outside["CONV_2D"] == coverage.ops["CONV_2D"], "XNNPACK takes no 16-bit activations"
        assert any("outside XNNPACK" in warning for warning in coverage.warnings)


def activation_types(path: Path) -> set[str]:
    """Types of the zero points of a file's QuantizeLinear."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(path).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor).dtype.name for tensor in graph.initializer}
    return {held[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}


def test_a_precision_that_a_target_lacks_is_one_line_with_those_that_have_it(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    found = export_files(tiny, tiny_spec, ["executorch"], ["w8a16", "pal4", "w3"], tmp_path)
    lacks = "executorch has no precision {}: choose from fp32, fp16, int8{}"
    assert [one.reason for one in found] == [
        lacks.format("'w8a16'", "; onnx, litert, qnn have w8a16"),
        lacks.format("'pal4'", "; coreml has pal4"),
        lacks.format("'w3'", ""),
    ]
    assert {one.status for one in found} == {"refused"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["onnx", "litert"])
def test_too_few_calibration_images_are_refused_in_one_line(
    target: str, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    (result,) = export_files(tiny, tiny_spec, [target], ["int8"], tmp_path)
    assert result.status == "refused"
    assert "at least 8 calibration images, got 0" in result.reason
    assert list(tmp_path.iterdir()) == []


def test_every_precision_of_the_table_has_a_tolerance() -> None:
    for target in CELLS:
        for precision in load_exporter(target).precisions:
            assert precision in TOLERANCES
        assert set(load_exporter(target).precisions) | {"fp32"} == {"fp32", *CELLS[target]}


def test_core_ml_refuses_an_unknown_system_and_int8_activations_before_ios17(
    tiny: nn.Module, tiny_spec: ExportSpec
) -> None:
    exporter = load_exporter("coreml")
    old = tiny_spec.model_copy(update={"options": ExportOptions(coreml_target="iOS99")})
    assert "unknown Core ML deployment target 'iOS99'" in str(exporter.unsupported_reason(tiny, old))
    assert "iOS17" in str(exporter.unsupported_reason(tiny, tiny_spec.model_copy(update={"precision": "w8a8"})))


@pytest.mark.slow
def test_litert_converts_once_for_fp16_once_for_the_others_and_anew_for_other_weights(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy

    import litert_torch

    calls: list[int] = []
    convert = litert_torch.convert
    monkeypatch.setattr(litert_torch, "convert", lambda *given: calls.append(1) or convert(*given))
    network, exporter = copy.deepcopy(tiny).eval(), load_exporter("litert")
    for precision in ("fp32", "fp16", "fp16-weights", "fp16", "int8-dynamic"):
        exporter.export(network, tiny_spec.model_copy(update={"precision": precision}), tmp_path / precision)
    assert len(calls) == 2
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    exporter.export(network, tiny_spec, tmp_path / "changed")
    assert len(calls) == 3
    assert (tmp_path / "changed").read_bytes() != (tmp_path / "fp32").read_bytes()


class Padded(nn.Module):
    """A pad of its own between operators that are quantized, as MobileMamba's wavelets have on odd maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 2, stride=2, groups=8)
        self.last = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        wide = nn.functional.pad(y, (0, 2, 0, 2))
        return self.last((self.second(wide) * 3 + wide[..., ::2, ::2]).mean((2, 3)))


@pytest.mark.slow
def test_a_pad_keeps_its_scale_in_an_int8_program(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, calibration = Padded().eval(), [sample_images(tiny_spec)]
    (result,) = export_files(network, tiny_spec, ["executorch"], ["int8"], tmp_path, calibration=calibration)
    assert result.status == "exported", result.reason
    assert result.artifact is not None
    assert result.artifact.parity is not None
    assert result.artifact.parity.snr_db > 25


@pytest.mark.slow
def test_a_softmax_behind_a_convolution_keeps_its_axis(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    """XNNPACK's passes would take it over the channels: `mobilezoo_export.passes.softmax`."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Softmax(-1), nn.AvgPool2d((12, 3)), nn.Flatten(), nn.Linear(40, 10))
    (result,) = export_files(network.eval(), tiny_spec, ["executorch"], ["fp32"], tmp_path)
    assert result.status == "exported", result.reason


class _FloatOnCpus(nn.Module):
    """A norm, a ReLU that no convolution takes in, GELU and hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3), nn.LayerNorm(8), nn.Conv2d(16, 8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.first(x))
        x = torch.cat([x, self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)], dim=1).relu()
        return self.head(nn.functional.hardswish(self.second(x)).mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("int8_io", [False, True])
def test_what_xnnpack_takes_in_float_only_stays_float_unless_the_file_is_for_accelerators(
    int8_io: bool, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    spec = tiny_spec.model_copy(update={"options": ExportOptions(int8_io=int8_io)})
    (result,) = export_files(
        _FloatOnCpus().eval(), spec, ["litert"], ["int8"], tmp_path, calibration=[sample_images(spec)]
    )
    assert result.status == "exported", result.reason
    assert result.artifact is not None
    found = result.artifact.coverage
    assert found is not None
    assert ("DEQUANTIZE" in found.ops) != int8_io
    assert {"GELU", "RELU", "RSQRT", "SUB"} <= set(found.outside or {}) if int8_io else found.partitions == 1
