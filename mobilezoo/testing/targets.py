"""Conformance suite of export targets: their fp32 files."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Preprocessing, load_record_of
from mobilezoo.files import sha256_of
from mobilezoo_export import (
    ExportConfig,
    ExportResult,
    ExportSpec,
    ModelSpec,
    ProofImages,
    export_model,
    load_exporter,
    load_runner,
)

SIDE = 14


class SmallNet(nn.Module):
    """Strided convolution, BatchNorm, a depthwise one, a gate, a linear head: [B, 3, 14, 14] → [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.gate = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        self.eval()

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        x_bchw = nn.functional.hardswish(self.norm(self.stem(x_bchw)))
        gated = self.depthwise(x_bchw) * self.gate(x_bchw.mean((2, 3), keepdim=True)).sigmoid()
        logits: torch.Tensor = self.head(gated.mean((2, 3)))
        return logits


def export_files(
    network: nn.Module,
    spec: ExportSpec,
    targets: Sequence[str],
    precisions: Sequence[str],
    folder: Path,
    *,
    calibration: Sequence[np.ndarray] = (),
    overwrite: bool = False,
) -> list[ExportResult]:
    """Exports a network as a spec describes it, in this process.

    Args:
        network: takes float32 NCHW images, returns logits (N, classes).
        spec: name, input, batch size and options of the files.
        targets: names or places.
        precisions: fp32, fp16, int8, ...
        folder: folder of the files.
        calibration: float32 NCHW batches.
        overwrite: replace files that exist.

    Returns:
        One result per target and precision, in order.
    """
    model = ModelSpec(**{name: getattr(spec, name) for name in ModelSpec.model_fields})
    chosen = {"targets": targets, "precisions": precisions, "batch": spec.batch, "overwrite": overwrite}
    config = ExportConfig.parse(spec.options.model_dump() | chosen, "a test")
    images = ProofImages(calibration=np.concatenate(list(calibration)) if calibration else None)
    return export_model(network, model, config, folder, images=images, isolate=False)


def export_small(target: str, folder: Path) -> ExportResult:
    """Exports `SmallNet` as the fp32 file `tiny` of a target.

    Args:
        target: name or place.
        folder: folder of the file.
    """
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    labels = tuple("abcdefghij")
    spec = ModelSpec(model="tiny", resolution=(SIDE, SIDE), preprocessing=preprocessing, labels=labels)
    config = ExportConfig(targets=(target,), precisions=("fp32",))
    (result,) = export_model(SmallNet(), spec, config, folder, isolate=False)
    assert result.status == "exported", result.reason
    return result


class TargetConformance:
    """Subclass it as `class TestMine(TargetConformance)` and name a target; pytest runs what is inherited."""

    target: ClassVar[str]
    """Name or place."""

    @pytest.fixture(scope="class")
    def network(self) -> nn.Module:
        return SmallNet()

    @pytest.fixture(scope="class")
    def result(self, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
        return export_small(self.target, tmp_path_factory.mktemp("target"))

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

    def test_runner_takes_any_number_of_images(self, result: ExportResult, network: nn.Module) -> None:
        """A batch of another size than the one exported gives PyTorch's logits.

        Args:
            result: the exported file.
            network: the network it was made of.
        """
        assert result.path is not None
        images = np.random.default_rng(1).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
        logits = load_runner(result.path).run(images)
        assert logits.shape == (3, 10)
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(torch.from_numpy(images)).numpy(), rtol=1e-3, atol=1e-4)
