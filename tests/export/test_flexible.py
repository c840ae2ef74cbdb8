"""Files that take other batches and resolutions are right at them, and what cannot is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.errors import ExportError
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportSpec, load_runner
from mobilezoo_export.flexible import bounds, other_specs
from mobilezoo_export.images import sample_images
from mobilezoo_export.prepare import prepare
from mobilezoo_export.same_padding import settle_padding

LONG = [pytest.param(name, marks=pytest.mark.nightly) for name in ("coreml", "executorch")]


class Convolutions(nn.Module):
    """What any target takes at any size."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem, self.depthwise = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 2, 1, groups=12)
        self.gate, self.head = nn.Conv2d(12, 12, 1), nn.Linear(12, 10)
        for tensor in self.parameters():
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.depthwise(F.hardswish(self.stem(x))))
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Attention(Convolutions):
    """Positions attend to each other: as many as the image has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        tokens = x.flatten(2)
        mixed = tokens @ (tokens.transpose(1, 2) @ tokens).softmax(-1)
        return self.head((x + mixed.reshape(x.shape)).mean((2, 3)))


class Coordinates(Convolutions):
    """Means along rows and columns, together and apart again, as in coordinate attention."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        both = self.gate(torch.cat((rows, columns), 2))
        rows, columns = both.split((x.shape[2], x.shape[3]), dim=2)
        return self.head((x * rows * columns.transpose(2, 3)).mean((2, 3)))


class Positions(Convolutions):
    """A table for 8 × 8 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 12, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.features(x) + self.table).mean((2, 3)))


def flexible(spec: ExportSpec, kind: str, resolution: int = 32, **options: object) -> ExportSpec:
    chosen = ExportOptions(flexible=kind, **options)  # type: ignore[arg-type]
    return spec.model_copy(update={"options": chosen, "resolution": (resolution, resolution)})


@pytest.mark.parametrize(
    ("size", "expected"), [(224, range(128, 449, 32)), (32, range(16, 65, 8)), (14, range(8, 29, 2))]
)
def test_resolutions_go_from_half_to_double_in_steps_that_stages_halve(
    size: int, expected: range, tiny_spec: ExportSpec
) -> None:
    found = bounds(flexible(tiny_spec, "both", size))
    assert found == {0: range(1, 17), 2: expected, 3: expected}
    assert bounds(flexible(tiny_spec, "none", size)) == {}
    shapes = [other.shape for other in other_specs(flexible(tiny_spec, "both", size))]
    assert shapes == [(3, 3, expected[0], expected[-1]), (1, 3, expected[-1], expected[0])]


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["onnx", "litert", "coreml", "executorch"])
def test_flexible_files_may_be_int8(target: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    spec = flexible(tiny_spec, "both")
    images = [sample_images(spec, 32, seed=5)]
    (result,) = export_files(Convolutions(), spec, [target], ["int8"], tmp_path, calibration=images)
    assert result.ok, result.reason


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "litert", *LONG])
def test_flexible_files_agree_at_other_sizes(target: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    network, spec = Convolutions(), flexible(tiny_spec, "both")
    (result,) = export_files(network, spec, [target], ["fp32"], tmp_path)
    assert result.path is not None, result.reason
    runner = load_runner(result.path)
    assert runner.input.shape[0] == 1
    for other in (spec, spec.model_copy(update={"batch": 5, "resolution": (40, 24)})):
        images = sample_images(other, other.batch)
        runner.prepare(images)
        runner.invoke()
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(runner.output(), expected, atol=1e-4 * expected.std())


@pytest.mark.slow
def test_graphs_hold_no_sizes(tiny_spec: ExportSpec) -> None:
    spec = flexible(tiny_spec, "both")
    for network in (Convolutions(), Attention(), Coordinates()):
        graph = prepare(network, spec).graph
        assert not any("split" in str(node.target) for node in graph.graph.nodes)
        images = torch.from_numpy(sample_images(spec.model_copy(update={"resolution": (40, 24)}), 5))
        torch.testing.assert_close(graph(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["coreml", "executorch"])
def test_coordinate_attention_follows_the_resolution(target: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (result,) = export_files(Coordinates(), flexible(tiny_spec, "both"), [target], ["fp32"], tmp_path)
    assert result.ok, result.reason


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", *LONG])
def test_attention_follows_the_resolution(target: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (result,) = export_files(Attention(), flexible(tiny_spec, "both"), [target], ["fp32"], tmp_path)
    assert result.ok, result.reason


@pytest.mark.slow
def test_a_litert_file_that_fails_at_other_sizes_is_not_kept(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    spec = flexible(tiny_spec, "resolution")
    (result,) = export_files(Attention(), spec, ["litert"], ["fp32"], tmp_path)
    assert result.status == "failed"
    assert "export one file per size" in result.reason
    assert not list(tmp_path.iterdir())


def test_a_table_of_positions_is_refused_in_one_line(tiny_spec: ExportSpec) -> None:
    prepare(Positions(), flexible(tiny_spec, "batch"))
    with pytest.raises(ExportError, match=r"cannot take other sizes .*export one file per size instead$"):
        prepare(Positions(), flexible(tiny_spec, "resolution"))


def test_core_ml_refuses_what_it_cannot_leave_open(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    for kind, options, reason in (("resolution", {}, "nearest upsampling"), ("batch", {"image": True}, "one by one")):
        (result,) = export_files(tiny, flexible(tiny_spec, kind, **options), ["coreml"], ["fp32"], tmp_path)
        assert result.status == "refused"
        assert reason in result.reason


@pytest.mark.slow
def test_core_ml_images_may_have_other_resolutions(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import coremltools as ct

    spec = flexible(tiny_spec, "resolution", image=True)
    (result,) = export_files(Convolutions(), spec, ["coreml"], ["fp32"], tmp_path)
    assert result.path is not None, result.reason
    kind = ct.utils.load_spec(result.path).description.input[0].type.imageType
    assert (kind.width, kind.imageSizeRange.widthRange.lowerBound, kind.imageSizeRange.heightRange.upperBound) == (
        32,
        16,
        64,
    )
    assert load_runner(result.path).input.shape == (1, 3, 32, 32)


def test_same_padding_is_settled_for_all_resolutions(tiny_spec: ExportSpec) -> None:
    from timm.layers import Conv2dSame

    network = nn.Sequential(Conv2dSame(3, 4, 3, stride=2), Conv2dSame(4, 4, (5, 3), stride=2, bias=False)).eval()
    spec = flexible(tiny_spec, "resolution", 64)
    images = torch.from_numpy(sample_images(spec, 2))
    expected = network(images)
    settle_padding(network, spec)
    assert not any(isinstance(module, Conv2dSame) for module in network.modules())
    torch.testing.assert_close(network(images), expected)


def test_padding_that_differs_between_resolutions_is_refused(tiny_spec: ExportSpec) -> None:
    from timm.layers import Conv2dSame

    network = nn.Sequential(*(Conv2dSame(3, 3, 3, stride=2) for _ in range(5)))
    with pytest.raises(ExportError, match="the padding of 3 depends on the resolution"):
        settle_padding(network, flexible(tiny_spec, "resolution"))
