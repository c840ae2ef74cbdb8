"""Files compiled for a Hexagon NPU: run as they are on Qualcomm's emulation, and every way they are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.errors import DeviceError, ExportError
from mobilezoo.testing.targets import export_files
from mobilezoo.workflows.check_units import check_file
from mobilezoo_export import ExportOptions, ExportSpec, FileApart, load_exporter, load_runner
from mobilezoo_export.htp import layout
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.registry import exporter_of
from mobilezoo_latency.npu.probe import write_probe


class Normed(nn.Module):
    """A group norm, a layer norm over the channels of an image, one over tokens, attention, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.group = nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(1, 16)
        self.image_norm, self.token_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 10)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for norm in (self.group, self.image_norm, self.token_norm):
            norm.weight.data.abs_().add_(0.5)
        self.eval()

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        x_bchw = self.group(self.stem(x_bchw)).relu()
        x_bchw = x_bchw + self.image_norm(x_bchw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x_bnc = self.token_norm(x_bchw.flatten(2).transpose(1, 2))
        tokens = x_bnc.shape[1]
        q, k, v = self.qkv(x_bnc).reshape(-1, tokens, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, tokens, 16)
        logits: torch.Tensor = self.head((x_bnc + self.out(mixed)).mean(1))
        return logits


def require_npu() -> None:
    try:
        layout.command_of(layout.find_emulation())
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp16", "int8", "w8a16"])
def test_a_file_is_one_context_that_reloads_and_equals(
    precision: str, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    require_npu()
    calibration = [sample_images(tiny_spec)]
    (result,) = export_files(tiny, tiny_spec, ["qnn"], [precision], tmp_path, calibration=calibration)
    assert result.artifact is not None, result.reason
    assert result.path is not None
    assert (Path(result.path).name, result.warnings) == (f"tiny.{precision}.qnn.onnx", ())
    found = result.artifact
    assert found.coverage is not None
    assert found.coverage.ops["EPContext"] == 1
    assert found.parity is not None
    assert (found.parity.images, found.parity.ran_in.endswith("(emulated HTP v75)")) == (8, True)
    assert read_metadata(Path(result.path))["precision"] == precision
    images = np.random.default_rng(0).standard_normal((3, *tiny_spec.shape[1:])).astype(np.float32)
    with FileApart(result.path) as once, FileApart(result.path) as again:
        np.testing.assert_array_equal(once.run(images), again.run(images))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_norms_and_attention_stay_in_one_context(precision: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    require_npu()
    calibration = [sample_images(tiny_spec)]
    (result,) = export_files(Normed(), tiny_spec, ["qnn"], [precision], tmp_path, calibration=calibration)
    assert result.artifact is not None, result.reason
    assert result.warnings == (), "no operator is left to the CPU"
    assert result.artifact.coverage is not None
    assert result.artifact.coverage.ops["EPContext"] == 1
    assert result.artifact.parity is not None
    assert result.artifact.parity.snr_db > {"fp16": 40, "int8": 15}[precision]


@pytest.mark.slow
def test_borders_of_an_int8_onnx_file_are_no_fall_back(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    require_npu()
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    images = sample_images(tiny_spec)
    (made,) = export_files(plain, tiny_spec, ["onnx"], ["int8"], tmp_path, calibration=[images])
    assert made.artifact is not None, made.reason
    assert made.path is not None
    with torch.inference_mode():
        answers = plain(torch.from_numpy(images)).numpy()
    one = check_file(Path(made.path), made.artifact, "npu", images, answers)
    assert (one.status, one.partitions, one.outside) == ("passed", 1, {}), one
    assert any("between float inputs and outputs" in note for note in one.notes)


@pytest.mark.slow
def test_the_npu_takes_operators_of_unsigned_activations_that_it_leaves_of_signed_ones(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    require_npu()
    images, left = sample_images(tiny_spec), {}
    with torch.inference_mode():
        answers = tiny(torch.from_numpy(images)).numpy()
    for activations in ("int8", "uint8"):
        spec = tiny_spec.model_copy(
            update={"options": ExportOptions.parse({"onnx_activations": activations}, "a test")}
        )
        (made,) = export_files(tiny, spec, ["onnx"], ["int8"], tmp_path / activations, calibration=[images])
        assert made.artifact is not None, made.reason
        assert made.path is not None
        left[activations] = check_file(Path(made.path), made.artifact, "npu", images, answers).outside
    assert left["uint8"] == {}
    assert left["int8"] is not None
    assert "HardSigmoid" in left["int8"]


@pytest.mark.nightly
def test_a_wrong_chip_is_one_line_and_leaves_nothing(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    require_npu()
    spec = tiny_spec.model_copy(update={"options": ExportOptions(soc_model=9999)})
    (result,) = export_files(tiny, spec, ["qnn"], ["fp16"], tmp_path)
    assert result.status == "failed"
    assert "for the HTP v75 (soc_model 9999): its backend does not start" in result.reason
    assert "\n" not in result.reason
    assert not list(tmp_path.iterdir())


def test_without_a_set_up_the_line_that_makes_it(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(layout.ENVIRONMENT, str(tmp_path / "none"))
    (result,) = export_files(tiny, tiny_spec, ["qnn"], ["fp16"], tmp_path)
    assert (result.status, result.artifact) == ("refused", None)
    assert "mobilezoo device setup npu" in result.reason


def test_what_the_htp_cannot_take_is_refused(tiny: nn.Module, tiny_spec: ExportSpec) -> None:
    exporter = load_exporter("qnn")
    assert "half precision: use fp16" in str(exporter.unsupported_reason(tiny, tiny_spec))
    image = {"precision": "fp16", "options": ExportOptions(image=True)}
    assert "0 or 1" in str(exporter.unsupported_reason(tiny, tiny_spec.model_copy(update=image)))
    flexible = {"precision": "fp16", "options": ExportOptions(flexible="batch")}
    assert "fixed sizes" in str(exporter.unsupported_reason(tiny, tiny_spec.model_copy(update=flexible)))


def test_a_file_without_a_chip_and_a_damaged_one_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.qnn.onnx"
    assert exporter_of(path).target == "qnn"
    assert exporter_of(tmp_path / "x.onnx").target == "onnx"
    write_probe(path)
    with pytest.raises(ExportError, match=r"^'x.qnn.onnx' is no qnn file .* it names no chip$"):
        load_runner(path)
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"^'x.qnn.onnx' cannot be read as ONNX: it is damaged$"):
        load_runner(path)
