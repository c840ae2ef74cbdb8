"""The conformance suite: what every target's fp32 file must do. A new target adds one subclass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, load_record_of, sha256_of
from mobilezoo_export import ExportResult, ExportSpec, export_model, load_exporter, load_runner


class Conformance:
    target: str

    @pytest.fixture(scope="class")
    def result(self, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
        folder = tmp_path_factory.mktemp(self.target)
        (only,) = export_model(tiny, tiny_spec, [self.target], ["fp32"], folder, isolate=False)
        assert only.status == "exported", only.reason
        return only

    def test_file_is_named_after_model_and_precision(self, result: ExportResult) -> None:
        assert result.path is not None
        assert Path(result.path).name == f"tiny.fp32{load_exporter(self.target).suffix}"
        assert Path(result.path).exists()

    def test_record_describes_the_file(self, result: ExportResult) -> None:
        assert result.path is not None
        record = load_record_of(Artifact, result.path)
        assert record == result.artifact
        assert record.sha256 == sha256_of(Path(result.path))
        assert record.labels == tuple("abcdefghij")
        assert record.tools["torch"] == torch.__version__.split("+")[0]

    def test_parity_is_measured_by_running_the_file(self, result: ExportResult) -> None:
        assert result.artifact is not None
        parity = result.artifact.parity
        assert parity is not None
        assert parity.images == 64
        assert parity.relative < 1e-4
        assert parity.top1_agreement == 1.0

    def test_runner_takes_any_number_of_images(self, result: ExportResult, tiny: nn.Module) -> None:
        assert result.path is not None
        images = np.random.default_rng(1).standard_normal((3, 3, 14, 14)).astype(np.float32)
        logits = load_runner(result.path).run(images)
        assert logits.shape == (3, 10)
        with torch.no_grad():
            np.testing.assert_allclose(logits, tiny(torch.from_numpy(images)).numpy(), rtol=1e-3, atol=1e-4)


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


def test_core_ml_file_is_written_and_says_that_it_was_not_run(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    (result,) = export_model(tiny, tiny_spec, ["coreml"], ["fp32"], tmp_path, isolate=False)
    assert result.status == "exported", result.reason
    assert result.artifact is not None
    assert result.artifact.parity is not None or "not run here" in str(result.artifact.not_run)
