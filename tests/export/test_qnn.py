"""Files compiled for a Hexagon NPU: run as they are on Qualcomm's emulation, and every way they are refused."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mobilezoo.errors import DeviceError, ExportError
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportSpec, FileApart, load_exporter, load_runner
from mobilezoo_export.htp import layout
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.registry import exporter_of
from mobilezoo_latency.npu.probe import write_probe


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
