"""Which operators of a LiteRT graph are norms, on graphs written by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportSpec, load_exporter, load_runner
from mobilezoo_export.coverage import coverage, read_litert
from mobilezoo_export.images import sample_images
from mobilezoo_export.prepare import prepare
from mobilezoo_export.quantize import litert as quantizing
from mobilezoo_export.quantize.litert import _norms

MAP, MEAN = (1, 7, 7, 8), (1, 7, 7, 1)


def norms(*operators: tuple[str, tuple[int, ...], int], shapes: dict[int, tuple[int, ...]]) -> list[str]:
    """Names of the operators found, each with the number of its output."""
    graph = SimpleNamespace(
        operators=[SimpleNamespace(inputs=inputs, outputs=(output,)) for _, inputs, output in operators],
        tensors=[SimpleNamespace(shape=shapes.get(tensor, MAP)) for tensor in range(20)],
    )
    found = _norms(graph, [name for name, _, _ in operators])
    return [f"{operators[position][0]} {operators[position][2]}" for position in sorted(found)]


def test_a_layer_norm_is_found_without_what_stands_before_and_behind() -> None:
    found = norms(
        ("CONV_2D", (0,), 1),
        ("ADD", (0, 1), 2),  # a residual sum
        ("MEAN", (2,), 3),
        ("SQUARED_DIFFERENCE", (2, 3), 4),
        ("MEAN", (4,), 5),
        ("ADD", (5, 19), 6),
        ("RSQRT", (6,), 7),
        ("MUL", (7, 3), 8),
        ("MUL", (2, 7), 9),
        ("SUB", (9, 8), 10),
        ("CONV_2D", (10,), 11),
        ("ADD", (2, 11), 12),
        shapes=dict.fromkeys((3, 5, 6, 7, 8), MEAN) | {19: ()},
    )
    assert found == [
        "MEAN 3", "SQUARED_DIFFERENCE 4", "MEAN 5", "ADD 6", "RSQRT 7", "MUL 8", "MUL 9", "SUB 10",
    ]  # fmt: skip


def test_a_norm_that_divides_by_the_deviation_is_found() -> None:
    found = norms(
        ("CONV_2D", (0,), 1),
        ("MEAN", (1,), 2),
        ("SUB", (1, 2), 3),
        ("MUL", (3, 3), 4),
        ("MEAN", (4,), 5),
        ("SQRT", (5,), 6),
        ("ADD", (6, 19), 7),
        ("DIV", (3, 7), 8),
        ("MUL", (8, 18), 9),
        ("CONV_2D", (9,), 10),
        shapes=dict.fromkeys((2, 5, 6, 7), MEAN) | {19: (), 18: ()},
    )
    assert found == ["MEAN 2", "SUB 3", "MUL 4", "MEAN 5", "SQRT 6", "ADD 7", "DIV 8", "MUL 9"]


def test_a_root_mean_square_ends_at_its_map() -> None:
    found = norms(
        ("CONV_2D", (0,), 1),
        ("MUL", (1, 1), 2),
        ("MEAN", (2,), 3),
        ("ADD", (3, 19), 4),
        ("RSQRT", (4,), 5),
        ("MUL", (1, 5), 6),
        ("BATCH_MATMUL", (6, 6), 7),
        shapes=dict.fromkeys((3, 4, 5), MEAN) | {19: ()},
    )
    assert found == ["MUL 2", "MEAN 3", "ADD 4", "RSQRT 5", "MUL 6"]


def test_a_graph_without_norms_has_none() -> None:
    assert norms(("CONV_2D", (0,), 1), ("ADD", (0, 1), 2), ("MEAN", (2,), 3), shapes={}) == []


class FarApart(nn.Module):
    """A sum whose parts differ by five orders of magnitude: XNNPACK takes none in int8. The small one is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.stem(x))
        small = self.conv(x) * 1e-5
        return torch.tanh(x + small), small


@pytest.mark.slow
def test_what_xnnpack_refuses_in_int8_stays_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    litert_torch = pytest.importorskip("litert_torch")
    pytest.importorskip("ai_edge_quantizer")
    torch.manual_seed(0)
    x = torch.randn(8, 3, 6, 6)
    source, made = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    litert_torch.convert(FarApart().eval(), (x[:1],)).export(str(source))
    batches = [image[None].numpy() for image in x]
    quantizing.quantize(source, made, "int8", batches)
    assert read_litert(made).partitions == 1
    assert np.dtype(np.int8) in _types(made)
    monkeypatch.setattr(quantizing, "_without_refused", lambda *_: None)
    quantizing.quantize(source, made, "int8", batches)
    found = read_litert(made)
    assert found.partitions == 2
    assert found.outside is not None
    assert found.outside["ADD"] == 1


def _types(path: Path) -> set[np.dtype]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return {np.dtype(detail["dtype"]) for detail in interpreter.get_tensor_details()}


def test_ranges_whose_scale_is_a_power_of_two_are_widened_and_others_kept() -> None:
    def limits(low: float, high: float) -> dict[str, np.ndarray]:
        return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}

    ranges = {"one": limits(0, 1), "two": limits(-2, 0.5), "half": limits(0, 0.5001), "other": limits(-3, 1)}
    ranges |= {"nothing": limits(0, 0)}
    quantizing._widen_powers_of_two(ranges)
    bounds = {name: (float(one["min"][0]), float(one["max"][0])) for name, one in ranges.items()}
    assert bounds["one"] == pytest.approx((0, 1.02))
    assert bounds["two"] == pytest.approx((-2.04, 0.51))
    assert bounds["half"] == pytest.approx((0, 0.5001 * 1.02))
    assert (bounds["other"], bounds["nothing"]) == ((-3, 1), (0, 0))


class _PowersOfTwo(nn.Module):
    """A sum of two maps from -1 to 1, all of whose scales are powers of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = (9 * self.first(x)).clamp(-1, 1), (9 * self.second(x)).clamp(-1, 1)
        return self.head((a + b).mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("widened", [True, False])
def test_a_16_bit_sum_of_powers_of_two_loads(
    widened: bool, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    if not widened:
        monkeypatch.setattr(quantizing, "_widen_powers_of_two", lambda _: None)
    images = [sample_images(tiny_spec)]
    (result,) = export_files(_PowersOfTwo().eval(), tiny_spec, ["litert"], ["w8a16"], tmp_path, calibration=images)
    assert (result.status == "exported") is widened, result.reason
    assert widened or "ADD) failed to prepare" in result.reason


class SwitchedOff(nn.Module):
    """A residual branch that training brought next to zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.branch, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.branch.weight.data *= 1e-9
        self.branch.bias.data.zero_()
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head(x + self.branch(x)).mean((2, 3))


def test_a_branch_next_to_zero_stays_int8(tmp_path: Path) -> None:
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    spec = ExportSpec(model="off", resolution=(16, 16), preprocessing=plain, precision="int8")
    exporter, path = load_exporter("litert"), tmp_path / "off.tflite"
    images = np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32)
    network = SwitchedOff()
    exporter.export(prepare(network, spec).graph, spec, path, [images])
    found = coverage(exporter, path)
    assert found is not None
    assert (found.partitions, found.ops["ADD"], found.ops["QUANTIZE"], found.ops["DEQUANTIZE"]) == (1, 1, 1, 1)
    runner = load_runner(path)
    runner.prepare(images[:1])
    runner.invoke()
    with torch.no_grad():
        expected = network(torch.from_numpy(images[:1])).numpy()
    assert np.abs(runner.output() - expected).max() < 0.05 * np.abs(expected).max()
