"""Files for inputs of other shapes: oblong images, one and four channels, pixels of them; and their names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportSpec, load_runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.targets.coreml import _drop_strays

TARGETS = [
    "onnx",
    "litert",
    pytest.param("coreml", marks=pytest.mark.nightly),
    pytest.param("executorch", marks=pytest.mark.nightly),
]
COLORS = {1: "grey (ITU-R 601 luma", 4: "RGBA (alpha 255"}


class Net(nn.Module):
    """A strided and a depthwise convolution and a head; rows and columns weigh differently, so that no swap hides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem, self.depthwise = nn.Conv2d(channels, 8, (3, 5), 2, (1, 2)), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)
        for tensor in self.parameters():
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
        self.eval()

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.depthwise(torch.relu(self.stem(x_bchw)))).mean((2, 3)))
        return logits


def spec_for(spec: ExportSpec, channels: int, **options: object) -> ExportSpec:
    return spec.model_copy(
        update={
            "resolution": (12, 20),
            "in_chans": channels,
            "preprocessing": spec.preprocessing.for_channels(channels),
            "labels": (),
            "options": ExportOptions(**options),  # type: ignore[arg-type]
        }
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.nightly), 4])
def test_oblong_files_of_any_channels_compute_what_pytorch_does(
    tiny_spec: ExportSpec, tmp_path: Path, target: str, precision: str, channels: int
) -> None:
    network, spec = Net(channels), spec_for(tiny_spec, channels)
    images = [sample_images(spec, 16, seed=1)]
    (result,) = export_files(network, spec, [target], [precision], tmp_path, calibration=images)
    assert result.artifact is not None, result.reason
    assert result.artifact.parity is not None
    assert result.artifact.parity.snr_db > (
        80 if precision == "fp32" else 15
    )  # ONNX Runtime saturates int8 sums on CPUs without VNNI
    assert result.artifact.input.resolution == (12, 20)
    written = read_metadata(Path(str(result.path)))["input"]
    assert written["channels"].startswith(COLORS[channels])
    assert (written["resolution"], len(written["mean"])) == ([12, 20], channels)
    assert written["resize_and_crop"] == spec.preprocessing.rule((12, 20))


@pytest.mark.parametrize("target", ["onnx", pytest.param("litert", marks=pytest.mark.slow), *TARGETS[2:]])
def test_grey_pixels_go_in(tiny_spec: ExportSpec, tmp_path: Path, target: str) -> None:
    network, spec = Net(1), spec_for(tiny_spec, 1, image=True)
    (result,) = export_files(network, spec, [target], ["fp32"], tmp_path)
    assert result.path is not None, result.reason
    images = sample_images(spec, 3, seed=3)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(load_runner(result.path).run(images), expected, atol=0.02)  # pixels are rounded


def test_core_ml_has_no_images_of_four_channels(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    spec = spec_for(tiny_spec, 4, image=True)
    (result,) = export_files(Net(4), spec, ["coreml"], ["fp32"], tmp_path)
    assert (result.status, result.reason) == (
        "refused",
        "Core ML images are grey or RGB, not of 4 channels: leave image out",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "options"), [("fp32", {}), ("int8", {}), ("int8", {"int8_io": True}), ("w8a16", {})]
)
def test_litert_names_its_ends_as_onnx_does(
    tiny_spec: ExportSpec, tmp_path: Path, precision: str, options: dict[str, bool]
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    spec = spec_for(tiny_spec, 1, **options)
    images = [sample_images(spec, 16)]
    (result,) = export_files(Net(1), spec, ["litert"], [precision], tmp_path, calibration=images)
    assert result.path is not None, result.reason
    file = Interpreter(model_path=result.path)
    assert file.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    assert Path(result.path).stat().st_mode & 0o111 == 0
    ends = (file.get_input_details(), file.get_output_details())
    assert [[tensor["name"] for tensor in end] for end in ends] == [["image"], ["logits"]]


def test_a_package_holds_what_its_manifest_lists_and_nothing_else(tmp_path: Path) -> None:
    items = {"a": {"path": "com.apple.CoreML/model.mlmodel"}, "b": {"path": "com.apple.CoreML/weights"}}
    kept = {"Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"}
    for name in (*kept, "executorch_debug_handle_mapping.json", "Data/com.apple.CoreML/notes/x.txt", "Data/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    import json

    (tmp_path / "Manifest.json").write_text(json.dumps({"itemInfoEntries": items}))
    _drop_strays(tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == kept
