"""A fault put into one operator is found, by its layer's name."""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import InputSpec
from mobilezoo.errors import ExportError
from mobilezoo_export import Exporter, ExportSpec, Runner, registry
from mobilezoo_export.bisect import bisect, cut_points, truncate_at
from mobilezoo_export.images import sample_images
from mobilezoo_export.passes.graph import aten, calls, name_of
from mobilezoo_export.prepare import prepare
from mobilezoo_export.records import TensorSpec

FAULTS: dict[str, Any] = {}


class FaultyExporter(Exporter):
    """A converter that computes one operator wrongly, or refuses it."""

    target, suffix, extra, modules, packages, precisions = "faulty", ".faulty", "onnx", (), (), ("fp32",)

    def open(self, path: Path, threads: int, record: Any) -> Any:
        return FaultyRunner(path, threads, record)

    def export(self, model: Any, spec: ExportSpec, path: Path, calibration: Any = ()) -> list[str]:
        broken = copy.deepcopy(model)
        for node in calls(broken, *FAULTS):
            wrong = FAULTS[node.target]
            if wrong is None:
                raise ExportError(f"no {node.target}")
            node.target, node.args = wrong, node.args[:1]
        broken.recompile()
        FaultyRunner.model = broken
        path.write_text("made")
        return []


class FaultyRunner(Runner):
    model: nn.Module
    runtime = "faulty runtime"

    def __init__(self, path: Path, threads: int = 1, record: object = None) -> None:
        self.input = InputSpec(shape=(1, 3, 14, 14))
        self.inputs = (TensorSpec(name="x", shape=(1, 3, 14, 14), dtype="float32"),)

    def feed(self, values: Sequence[np.ndarray]) -> None:
        self.batch = torch.from_numpy(values[0])

    def invoke(self) -> None:
        with torch.no_grad():
            answer = self.model(self.batch)
        self.result = (answer[0] if isinstance(answer, list | tuple) else answer).numpy()

    def output(self) -> np.ndarray:
        return self.result


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    monkeypatch.setitem(sys.modules, "faulty_target", sys.modules[__name__])
    monkeypatch.setitem(registry.TARGETS.builtin, "faulty", "faulty_target:FaultyExporter")
    FAULTS.clear()
    return FAULTS


def test_every_truncated_network_gives_its_layers_output(tiny: nn.Module, tiny_spec: ExportSpec) -> None:
    graph = prepare(tiny, tiny_spec).graph
    x = torch.randn(tiny_spec.shape)
    layers = cut_points(graph)
    assert len(layers) > 5
    for node in layers:
        value = truncate_at(graph, node)(x)
        value = value[0] if isinstance(value, list | tuple) else value
        assert value.shape == (1, node.meta["val"][0].numel())
    torch.testing.assert_close(value, tiny(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [aten.relu.default, None])
def test_the_first_layer_that_diverges_is_named(
    tiny: nn.Module, tiny_spec: ExportSpec, faults: dict[Any, Any], wrong: Any
) -> None:
    images = sample_images(tiny_spec, 4)
    assert bisect(tiny, tiny_spec, "faulty", images).layer is None
    names = [name_of(node) for node in cut_points(prepare(tiny, tiny_spec).graph)]
    faulty = next(i for i, name in enumerate(names) if "(hardswish)" in name)
    faults[aten.hardswish.default] = wrong
    found = bisect(tiny, tiny_spec, "faulty", images)
    assert (found.layer, found.last_good) == (names[faulty], names[faulty - 1])
    assert found.probes <= 2 + len(names).bit_length()
    assert ("no aten.hardswish" in found.reason) == (wrong is None)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "litert", "coreml", "executorch"])
def test_real_targets_agree_to_the_end(tiny: nn.Module, tiny_spec: ExportSpec, target: str) -> None:
    found = bisect(tiny, tiny_spec, target, sample_images(tiny_spec, 4))
    assert (found.layer, found.probes) == (None, 1), found
