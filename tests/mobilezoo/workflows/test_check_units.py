"""Files are run on units of a phone before they get their name, and every way that ends is told apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import DeviceError, ExportError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo.workflows import check_units
from mobilezoo.workflows.check_units import IMAGES, UnitChecks
from mobilezoo_export import Runner
from mobilezoo_export.records import Reading, TensorSpec
from mobilezoo_latency.contract import ArtifactFile, Device, DeviceConfig

CLASSES = 10
IMAGES_NCHW = np.random.default_rng(0).standard_normal((8, 3, 4, 4), dtype=np.float32)
REFERENCE = IMAGES_NCHW.reshape(8, -1)[:, :CLASSES]


class UnitRunner(Runner):
    """Answers with the first values of each image, and an error on top."""

    runtime = "a stand-in"

    def __init__(self, error: float) -> None:
        self.input = InputSpec(shape=(1, 3, 4, 4))
        self.inputs = (TensorSpec(name="image", shape=(1, 3, 4, 4), dtype="float32"),)
        self.error = error

    def feed(self, values: Sequence[np.ndarray]) -> None:
        self.fed = values[0]

    def invoke(self) -> None:
        pass

    def output(self) -> np.ndarray:
        return self.fed.reshape(1, -1)[:, :CLASSES] + self.error * np.arange(CLASSES)

    def reading(self) -> Reading | None:
        return Reading(ops={"CONV_2D": 3, "SOFTMAX": 1}, partitions=1, outside={"SOFTMAX": 1})  # type: ignore[arg-type]


class Unit(Device):
    """A unit that computes with a given error, is not set up, or refuses the file."""

    def __init__(self, error: float = 0.0, missing: str = "", refused: str = "") -> None:
        super().__init__(DeviceConfig(type="unit", name="unit"))
        self.error, self.missing, self.refused = error, missing, refused

    def check(self) -> None:
        if self.missing:
            raise DeviceError(self.missing)

    def describe(self) -> DeviceInfo:
        raise NotImplementedError

    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        raise NotImplementedError

    def open_runner(self, artifact: ArtifactFile) -> Runner:
        if self.refused:
            raise DeviceError(self.refused)
        return UnitRunner(self.error)


def record(precision: str = "fp32") -> Artifact:
    return Artifact(
        path="tiny.tflite",
        target="litert",
        precision=precision,
        model="tiny",
        input=InputSpec(shape=(1, 3, 4, 4)),
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3),
        size_bytes=1,
        sha256="0" * 64,
        parity=None,
        tools={},
    )


def checked(monkeypatch: pytest.MonkeyPatch, unit: Unit, precision: str = "fp32", units: tuple[str, ...] = ("cpu",)):
    monkeypatch.setattr(check_units, "UNITS", dict.fromkeys(("cpu", "gpu"), unit))
    monkeypatch.setattr(check_units, "_is_half_on_arm", lambda path, record: record.precision == "fp16")
    return UnitChecks(units)(Path("tiny.tflite"), record(precision), IMAGES_NCHW, REFERENCE)


def test_a_right_unit_passes_with_its_figures_and_what_fell_back(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = checked(monkeypatch, Unit())
    assert (one.unit, one.status, one.reason) == ("cpu", "passed", "")
    assert one.parity is not None
    assert (one.parity.images, one.parity.relative, one.parity.ran_in) == (IMAGES, 0.0, "a stand-in")
    assert (one.partitions, one.outside) == (1, {"SOFTMAX": 1})


@pytest.mark.parametrize(
    ("unit", "status", "reason"),
    [
        (Unit(error=0.1), "failed", "differs from PyTorch by"),
        (Unit(error=float("nan")), "failed", "differs from PyTorch by"),
        (Unit(missing="no emulator: run `mobilezoo device setup emulator`"), "unavailable", "device setup emulator"),
        (Unit(refused="SOFTMAX is not supported"), "refused", "SOFTMAX"),
    ],
)
def test_what_does_not_pass_states_why(monkeypatch: pytest.MonkeyPatch, unit: Unit, status: str, reason: str) -> None:
    for one in checked(monkeypatch, unit, units=("cpu", "gpu")):
        assert one.status == status
        assert reason in one.reason


def test_half_precision_is_always_run_on_arm_and_wrong_answers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = checked(monkeypatch, Unit(error=0.002), "fp16", units=())
    assert (one.unit, one.status) == ("cpu", "passed")
    with pytest.raises(ExportError, match=r"half arithmetic.*not kept: fp16-weights"):
        checked(monkeypatch, Unit(error=1.0), "fp16", units=())
    with pytest.raises(ExportError, match=r"half arithmetic.* fails: BATCH_MATMUL does not run; it was not kept"):
        checked(monkeypatch, Unit(refused="BATCH_MATMUL does not run"), "fp16", units=())
    assert checked(monkeypatch, Unit(error=1.0), "fp16-weights", units=()) == ()


def test_where_the_core_is_not_set_up_the_record_states_that_nothing_was_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = checked(monkeypatch, Unit(missing="no emulator"), "fp16", units=())
    assert (one.status, one.reason) == ("unavailable", "no emulator")


def test_an_unknown_unit_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown unit 'cpo': did you mean cpu"):
        UnitChecks(("cpo",))
