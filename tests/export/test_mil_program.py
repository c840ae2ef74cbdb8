"""The program check computes what PyTorch computes, and notices a program that is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.errors import ExportError
from mobilezoo_export import ExportSpec, load_exporter
from mobilezoo_export.images import sample_images
from mobilezoo_export.mil.program import Program, load_program
from mobilezoo_export.prepare import prepare

pytest.importorskip("coremltools")


@pytest.fixture(scope="module")
def package(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coreml") / "tiny.mlpackage"
    load_exporter("coreml").export(prepare(tiny, tiny_spec).graph, tiny_spec, path)
    return path


def relative_error(program: Program, tiny: nn.Module, tiny_spec: ExportSpec) -> float:
    images = sample_images(tiny_spec, 8)
    logits = np.concatenate([program.run(image[None]) for image in images])
    with torch.no_grad():
        reference = tiny(torch.from_numpy(images)).numpy()
    return float(np.abs(logits - reference).max() / reference.std())


def test_a_right_program_agrees(package: Path, tiny: nn.Module, tiny_spec: ExportSpec) -> None:
    assert relative_error(load_program(package), tiny, tiny_spec) < 1e-4


def swap(old: str, new: str) -> Callable[[Any], bool]:
    """A fault that turns the first operation of one kind into another with the same arguments."""

    def fault(operations: Any) -> bool:
        for item in operations:
            if item.type == old:
                item.type = new
                return True
        return False

    return fault


def shift_slice(operations: Any) -> bool:
    """The first slice of the written-out upsampling shows another row."""
    names = [item.inputs["begin"].arguments[0].name for item in operations if item.type == "slice_by_index"]
    for item in operations:
        if item.type == "const" and item.outputs[0].name == names[0]:
            values = item.attributes["val"].immediateValue.tensor.ints.values
            ends = next(i for i in operations if i.type == "slice_by_index").inputs["end"].arguments[0].name
            values[2] += 1
            for other in operations:
                if other.type == "const" and other.outputs[0].name == ends:
                    other.attributes["val"].immediateValue.tensor.ints.values[2] += 1
            return True
    return False


@pytest.mark.parametrize(
    "fault",
    [swap("sigmoid", "tanh"), swap("reduce_mean", "reduce_max"), swap("mul", "add"), shift_slice],
    ids=["wrong activation", "wrong reduction", "wrong arithmetic", "wrong upsampling row"],
)
def test_a_wrong_program_is_noticed(
    fault: Callable[[Any], bool], package: Path, tiny: nn.Module, tiny_spec: ExportSpec
) -> None:
    import coremltools as ct

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    assert fault(block.operations)
    broken = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    assert relative_error(Program(broken), tiny, tiny_spec) > 1e-2


def test_an_unknown_operation_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilezoo_export.mil import arguments

    monkeypatch.delitem(arguments.OPERATIONS, "sigmoid")
    with pytest.raises(ExportError, match="does not know the operation sigmoid"):
        load_program(package)


def test_a_damaged_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.mlpackage").mkdir()
    with pytest.raises(ExportError, match="cannot be read as a Core ML package"):
        load_program(tmp_path / "x.mlpackage")


class Assorted(nn.Module):
    """Operators that the tiny network has not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.group = nn.LayerNorm(6), nn.GroupNorm(1, 4)
        self.conv, self.up = nn.Conv2d(3, 4, 3, 2, 2, dilation=2), nn.ConvTranspose2d(4, 4, 2, 2)
        self.same = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(F.gelu(self.group(self.conv(x))))
        x = self.same(F.max_pool2d(x, 3, 2, 1, ceil_mode=True))
        x = x + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + F.avg_pool2d(x, 3, 1, 1)
        x = F.pixel_shuffle(x, 2)[:, :, :6, :6]
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., ::2]
        a, b = torch.split(self.norm(x).flatten(1, 2), [5, 7], 1)
        attention = torch.softmax(a @ b.transpose(1, 2), -1)
        tail = torch.stack([attention.amax(-1), attention.std(-1), attention.pow(2).sum(-1).rsqrt()], 1)
        return torch.cat([tail.flatten(1), F.elu(F.leaky_relu(tail).flatten(1)), F.softplus(tail).flatten(1)], 1)


def test_other_operators_agree_with_pytorch(tmp_path: Path, tiny_spec: ExportSpec) -> None:
    torch.manual_seed(0)
    model = Assorted()
    path = tmp_path / "assorted.mlpackage"
    load_exporter("coreml").export(prepare(model, tiny_spec).graph, tiny_spec, path)
    image = torch.randn(1, 3, 14, 14)
    with torch.no_grad():
        np.testing.assert_allclose(load_program(path).run(image.numpy()), model(image).numpy(), rtol=1e-3, atol=1e-5)
