"""`eval FILE --check`: files that are already there, compared with their weights or with the host's runtime."""

from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, UnitCheck, load_record_of, save_record
from mobilezoo.errors import DeviceError, ExportError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo.workflows import check_exported, check_units
from mobilezoo_export import Runner
from mobilezoo_export.registry import start_runner
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig
from mobilezoo_latency.npu.probe import record_of, write_probe


class HostUnit(Device):
    """A unit that computes as this machine does, times a factor, or is not set up."""

    def __init__(self, factor: float = 1.0, missing: str = "") -> None:
        super().__init__(DeviceConfig(type="unit", name="unit"))
        self.factor, self.missing = factor, missing

    def check(self) -> None:
        if self.missing:
            raise DeviceError(self.missing)

    def describe(self) -> DeviceInfo:
        raise NotImplementedError

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        raise NotImplementedError

    def open_runner(self, artifact: ArtifactFile) -> Runner:
        runner = start_runner(artifact.path, artifact.record)
        right = runner.output
        runner.output = lambda: right() * np.float32(self.factor)  # type: ignore[method-assign]
        return runner


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> dict[str, HostUnit]:
    found = {
        "cpu": HostUnit(),
        "gpu": HostUnit(factor=1.5),
        "npu": HostUnit(missing="run `mobilezoo device setup npu`"),
    }
    for module in (check_units, check_exported):
        monkeypatch.setattr(module, "UNITS", found)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One layer and a mean over the pixels: eight scores."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "probe.onnx"
    write_probe(path)
    model = onnx.load(path)
    pooled = onnx.helper.make_node("GlobalAveragePool", ["answers"], ["pooled"])
    flat = onnx.helper.make_node("Flatten", ["pooled"], ["scores"])
    model.graph.node.extend([pooled, flat])
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 8]))
    onnx.save(model, path)
    return path


def test_a_file_of_others_is_compared_with_the_host(units: dict[str, HostUnit], path: Path) -> None:
    checked = check_exported.check_exported(path, tuple(units))
    right, wrong, missing = checked.checks
    assert (right.status, wrong.status, missing.status) == ("passed", "failed", "unavailable")
    assert "differs from the host's runtime by" in wrong.reason
    assert "mobilezoo device setup npu" in missing.reason
    assert all("compared with the host's runtime" in one.notes[-1] for one in (right, wrong))
    assert [file.name for file in path.parent.iterdir()] == ["probe.onnx"], "no record appears"


def test_a_record_takes_the_new_checks_and_keeps_the_others(units: dict[str, HostUnit], path: Path) -> None:
    old = UnitCheck(unit="npu", status="refused", reason="as before")
    save_record(path, record_of(path).model_copy(update={"checks": (old, UnitCheck(unit="cpu", status="failed"))}))
    check_exported.check_exported(path, ("cpu",))
    found = load_record_of(Artifact, path)
    assert [(one.unit, one.status) for one in found.checks] == [("npu", "refused"), ("cpu", "passed")]


def test_an_unknown_unit_and_a_file_of_open_size_are_one_line(units: dict[str, HostUnit], path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    with pytest.raises(UnknownNameError, match="unknown unit 'gpo': did you mean gpu"):
        check_exported.check_exported(path, ("gpo",))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(ExportError, match=r"'probe.onnx' declares no image of a fixed size: .*--resolution"):
        check_exported.check_exported(path, ("cpu",))
