"""Where the latency of a candidate comes from, and that its trial says so."""

import json
from pathlib import Path

import numpy as np
import pytest

import mobilezoo_latency
from mobilezoo.errors import DeviceError, MobilezooError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, LatencyReport
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.networks import load_search_config, model_config
from mobilezoo.search.records import Candidate, DeviceLostError
from mobilezoo.workflows import candidate_evaluator
from mobilezoo.workflows.candidate_evaluator import CandidateEvaluator
from mobilezoo.workflows.latency_blocks import block_keys
from mobilezoo.workflows.search import search
from mobilezoo_latency.estimators.table import Table


def candidate(settings: SearchConfig, folder: Path, seed: int = 0) -> Candidate:
    point = settings.space.sample(np.random.default_rng(seed))
    config = model_config(settings.space, point, "candidate_0000")
    return Candidate(number=0, point=point, config=config, folder=folder, report=lambda epoch, top1: None)


def test_a_table_gives_the_latency_with_its_error_and_name(tmp_path: Path) -> None:
    settings = load_search_config("digits", (f"estimator={tmp_path / 'pixel.table.json'}",))
    first = candidate(settings, tmp_path)
    keys = block_keys(settings.space, first.point)
    table = Table(
        device=DeviceInfo(name="Pixel", kind="phone", runtime="LiteRT"),
        source="made up",
        blocks_ms=dict.fromkeys(keys, 0.5),
        overhead_ms=0.25,
        error_percent=3.5,
        low_ratio=0.9,
        high_ratio=1.2,
        networks=12,
    )
    table.save(tmp_path / "pixel.table.json")
    found = CandidateEvaluator(settings).measure(first).latency["host"]
    assert found.ms == pytest.approx(0.25 + 0.5 * len(keys))
    assert (found.low_ms, found.high_ms) == (pytest.approx(found.ms * 0.9), pytest.approx(found.ms * 1.2))
    assert found.error_percent == 3.5
    assert found.source.startswith("estimated: pixel.table.json (")
    others = (candidate(settings, tmp_path, seed) for seed in range(1, 50))
    other = next(c for c in others if set(block_keys(settings.space, c.point)) - set(keys))
    with pytest.raises(DeviceError, match="has no block"):
        CandidateEvaluator(settings).measure(other)


def test_an_estimator_that_is_none_is_one_line(tmp_path: Path) -> None:
    settings = load_search_config("digits", (f"estimator={tmp_path / 'no.json'}",))
    with pytest.raises(MobilezooError, match="table or predictor not found"):
        CandidateEvaluator(settings).measure(candidate(settings, tmp_path))


class Phone:
    """A device that answers, fails or is unplugged as its script says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: list[str]) -> None:
        self.script = script
        self.slept = 0.0
        monkeypatch.setattr(mobilezoo_latency, "profile", self.profile, raising=False)
        monkeypatch.setattr(mobilezoo_latency, "load_device", lambda device: self, raising=False)
        monkeypatch.setattr(candidate_evaluator.time, "monotonic", lambda: self.slept)
        monkeypatch.setattr(candidate_evaluator.time, "sleep", self.sleep)
        monkeypatch.setattr(CandidateEvaluator, "_file", lambda self, candidate: Path(__file__))

    def profile(self, file: Path, device: str, reuse: str) -> LatencyReport:
        state = self.script.pop(0)
        if state != "there":
            raise DeviceError(f"adb: {state}")
        self.script.insert(0, "there")
        return LatencyReport.parse(json.loads(REPORT), "report")

    def check(self) -> None:
        if self.script and self.script[0] == "unplugged":
            raise DeviceError("no device")

    def close(self) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


INFO = {"name": "phone", "kind": "phone", "runtime": "LiteRT"}
REPORT = json.dumps(
    {
        **dict.fromkeys(("artifact_sha256", "artifact", "target", "precision", "model", "measured_at"), "x"),
        **dict.fromkeys(("load_ms", "first_run_ms", "sentinel_before_ms", "sentinel_after_ms")),
        "device": INFO,
        "protocol": {},
        "samples_ms": [2.0] * 30,
    }
)


def on_phone(tmp_path: Path, *changes: str) -> tuple[CandidateEvaluator, Candidate, list[str]]:
    settings = load_search_config("digits", ("devices=android", *changes))
    said: list[str] = []
    return CandidateEvaluator(settings, said.append), candidate(settings, tmp_path), said


def test_a_lost_device_stops_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Phone(monkeypatch, ["gone", "unplugged"])
    evaluator, network, _ = on_phone(tmp_path)
    with pytest.raises(DeviceLostError, match=r"device 'android' is gone: adb: gone: connect it .* trials are kept"):
        evaluator.measure(network)


def test_a_lost_device_is_waited_for_as_long_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = Phone(monkeypatch, ["unplugged", "unplugged", "unplugged", "there"])
    evaluator, network, said = on_phone(tmp_path, "on_device_lost=wait", "device_wait_min=10")
    assert evaluator.measure(network).latency["android"].ms == 2.0
    assert phone.slept == 2 * candidate_evaluator.POLL_S
    assert "waiting for it" in said[0]
    phone.script = ["unplugged"] * 99
    with pytest.raises(DeviceLostError, match="gone for 10 minutes"):
        evaluator.measure(network)
    assert phone.slept < 12 * 60


def test_a_lost_device_falls_to_the_stated_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pixel.table.json"
    evaluator, network, said = on_phone(tmp_path, "on_device_lost=estimate", f"fallback={file}")
    keys = block_keys(evaluator.settings.space, network.point)
    device = DeviceInfo(name="Pixel", kind="phone", runtime="LiteRT")
    ratios = {"error_percent": 3.5, "low_ratio": 0.9, "high_ratio": 1.2}
    Table(
        device=device, source="made up", blocks_ms=dict.fromkeys(keys, 0.5), overhead_ms=0.25, networks=12, **ratios
    ).save(file)
    phone = Phone(monkeypatch, ["gone", "unplugged"])
    found = evaluator.measure(network).latency["android"]
    assert (found.error_percent, found.measured) == (3.5, False)
    assert found.source.startswith("android is gone: estimated: pixel.table.json")
    assert "estimating by" in said[0]
    phone.script = ["there"]
    assert evaluator.measure(network).latency["android"].measured


def test_a_failure_of_a_device_that_is_there_is_the_candidates_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Phone(monkeypatch, ["hiccup", "there"])
    evaluator, network, _ = on_phone(tmp_path)
    assert evaluator.measure(network).latency["android"].ms == 2.0  # one hiccup is forgiven
    phone.script = ["cannot run this file", "cannot run this file", "there"]
    with pytest.raises(DeviceError, match="cannot run this file") as error:
        evaluator.measure(network)
    assert not isinstance(error.value, DeviceLostError)


def test_an_unknown_device_is_told_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with pytest.raises(UnknownNameError, match="unknown device config 'iphone99': did you mean iphone"):
        search("digits", ("devices=iphone99",), out=folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe=digit", "unknown train config 'digit': did you mean digits"),
        ("train.epoch=3", "unknown key 'train.epoch': did you mean train.epochs"),
        ("final_recipe=shvi", "unknown train config 'shvi': did you mean shvit"),
    ],
)
def test_a_wrong_recipe_is_told_before_anything_is_written(override: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with pytest.raises(MobilezooError, match=message):
        search("digits", (override,), out=folder)
    assert not folder.exists()
