"""fp16 files compute in half precision where a core has it, unless their values do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Preprocessing, load_record_of
from mobilezoo.testing.targets import export_files
from mobilezoo.workflows.check_units import check_file
from mobilezoo_export import ExportOptions, ExportSpec
from mobilezoo_export.half_precision import beyond_half
from mobilezoo_export.passes.graph import trace
from mobilezoo_export.registry import load_exporter, start_runner


class Peaky(nn.Module):
    """Its second layer's values are `factor` times those of the first, its logits are of ordinary size again."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.stem, self.peak, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 10)
        with torch.no_grad():
            self.peak.weight.mul_(factor)
            self.head.weight.div_(factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.peak(self.stem(x).relu()).mean((2, 3)))


def network(factor: float) -> Peaky:
    torch.manual_seed(0)
    return Peaky(factor).eval()


def spec(**changes: object) -> ExportSpec:
    half = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    return ExportSpec(model="peaky", resolution=(16, 16), preprocessing=half, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "named"), [(1.0, ()), (1.5e5, ("peak",))])
def test_the_layer_that_leaves_the_range_is_named(factor: float, named: tuple[str, ...]) -> None:
    graph = trace(network(factor), torch.zeros(1, 3, 16, 16))
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16), dtype=np.float32)
    found = beyond_half(graph, images)
    assert tuple(line.split()[0] for line in found if not line.startswith("mean")) == named
    assert all("reaches" in line for line in found)


def test_images_that_are_fewer_than_a_batch_are_looked_at() -> None:
    graph = trace(network(1.5e5), torch.zeros(4, 3, 16, 16))
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16), dtype=np.float32)
    assert beyond_half(graph, images, batch=4)


def test_a_value_that_is_not_a_number_leaves_the_range() -> None:
    graph = trace(network(1.0), torch.zeros(1, 3, 16, 16))
    assert "inf" in beyond_half(graph, np.full((1, 3, 16, 16), np.nan, np.float32))[0]


def test_fp16_files_compute_in_half_and_weights_alone_are_a_precision_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    from mobilezoo_export.litert_file import computes_in_half

    half, weights = export_files(network(1.0), spec(), ["litert"], ["fp16", "fp16-weights"], tmp_path)
    assert half.ok
    assert weights.ok
    assert not half.warnings
    assert computes_in_half(tmp_path / "peaky.fp16.tflite")
    assert not computes_in_half(tmp_path / "peaky.fp16-weights.tflite")
    assert abs(half.artifact.size_bytes - weights.artifact.size_bytes) < 1000  # type: ignore[union-attr]


def test_a_file_whose_values_do_not_fit_computes_in_float32_and_names_the_layer(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    from mobilezoo_export.litert_file import computes_in_half

    (done,) = export_files(network(1.5e5), spec(), ["litert"], ["fp16"], tmp_path)
    assert done.ok, done.reason
    assert any("peak (conv2d) reaches" in warning and "float32" in warning for warning in done.warnings)
    assert not computes_in_half(tmp_path / "peaky.fp16.tflite")


@pytest.mark.parametrize(("factor", "int8_io", "half"), [(1.0, False, True), (1.0, True, False), (1.5e5, False, False)])
def test_float_parts_of_int8_files_compute_in_half(factor: float, int8_io: bool, half: bool, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    from mobilezoo_export.litert_file import computes_in_half, has_float_parts

    options = ExportOptions(int8_io=int8_io)
    images = [np.random.default_rng(0).standard_normal((8, 3, 16, 16), dtype=np.float32)]
    (done,) = export_files(network(factor), spec(options=options), ["litert"], ["int8"], tmp_path, calibration=images)
    assert done.ok, done.reason
    assert computes_in_half(tmp_path / "peaky.int8.tflite") == half
    assert not has_float_parts(tmp_path / "peaky.int8.tflite")  # no core computes it otherwise
    assert any("reaches" in warning and "float parts" in warning for warning in done.warnings) == (factor > 1)


class Filtered(nn.Module):
    """A constant matrix times the rows of its feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        self.register_buffer("rows", torch.randn(1, 6, 14) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.rows @ self.stem(x).relu().flatten(2).transpose(1, 2).reshape(-1, 14, 14 * 8)
        return self.head(rows.reshape(-1, 6 * 14, 8).mean(1))


@pytest.mark.slow
def test_an_int8_file_with_float_parts_is_run_on_an_emulated_core(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    images = [np.random.default_rng(0).standard_normal((8, 3, 16, 16), dtype=np.float32)]
    (done,) = export_files(network.eval(), spec(), ["litert"], ["int8"], tmp_path, calibration=images)
    assert done.ok, done.reason
    assert load_exporter("litert").is_half_on_arm(tmp_path / "peaky.int8.tflite")


@pytest.mark.slow
def test_a_constant_on_the_left_of_a_product_does_not_end_half_precision(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    from mobilezoo_export.litert_file import computes_in_half

    torch.manual_seed(0)
    network = Filtered().eval()
    (done,) = export_files(network, spec(), ["litert"], ["fp16"], tmp_path)
    assert done.ok, done.reason
    assert not done.warnings
    path = tmp_path / "peaky.fp16.tflite"
    assert computes_in_half(path)
    record = load_record_of(Artifact, path)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32)
    one = check_file(path, record, "cpu", images, start_runner(path, record).run(images))
    if one.status == "unavailable":
        pytest.skip(one.reason)
    assert one.status == "passed", one.reason
    assert one.parity is not None
    assert one.parity.relative > 1e-4  # of this machine's float32 with the same weights
