"""A recommendation is the front within the limits; every other network has a reason, and nothing is guessed."""

from collections.abc import Iterator
from typing import Any

import pytest

from mobilezoo.config import config_names
from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, Estimate, LatencyReport, Protocol, error_in_words
from mobilezoo.models import entries as known
from mobilezoo.models.latency_table import LatencyTable
from mobilezoo.workflows import list_latency, recommend
from mobilezoo.workflows.recommendation import Wanted

CORE = {"description": "a core", "cpu": "c", "runtime": "r", "error_percent": 10.0, "low_ratio": 0.9, "basis": "b"}
COUNTED = {
    # name → (fp32 ms, int8 ms, fp32 bytes); published top-1 behind it
    "mnasnet_small": (4.0, 2.0, 8_000_000),  # 66.0
    "mnasnet_a1_050": (5.0, 2.5, 8_400_000),  # 68.9
    "mnasnet_tv_050": (5.5, 3.0, 8_900_000),  # 67.7: behind the one before
    "shvit_s1": (9.0, 6.0, 25_000_000),  # 72.8
    "illama_t": (50.0, 30.0, 23_000_000),  # 75.0
    "davit_3m": (12.0, 8.0, 13_000_000),  # none published
}


def a_table() -> LatencyTable:
    rows: list[dict[str, Any]] = []
    for name, (ms, ms_int8, size) in COUNTED.items():
        of = {"model": name, "device": "cortex_a76"}
        rows.append({**of, "precision": "fp32", "latency_ms": ms, "size_bytes": size})
        rows.append({**of, "precision": "int8", "latency_ms": ms_int8, "size_bytes": size // 4})
    rows.append({"model": "emo2_1m", "device": "cortex_a76", "precision": "fp32", "reason": "no such operator"})
    strides = {name: [4, 8, 16, 32] for name in COUNTED} | {"illama_t": [16, 16, 16]}
    core = {"cortex_a76": {**CORE, "high_ratio": 1.2}}
    table = {"protocol": "p", "tools": {}, "cpu_hours": 0.1, "cores": core, "peers": [], "strides": strides}
    return LatencyTable.parse({**table, "rows": rows})


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = a_table()
    for module in (recommend, known, list_latency):
        monkeypatch.setattr(module, "read_latencies", lambda: made)
    known.entries.cache_clear()
    yield
    known.entries.cache_clear()


def wanted(**limits: Any) -> Wanted:
    return Wanted(**limits)


def test_the_front_is_what_no_other_network_beats() -> None:
    found = recommend.recommend(wanted())
    assert [pick.model for pick in found.front] == ["mnasnet_small", "mnasnet_a1_050", "shvit_s1", "illama_t"]
    assert found.best.model == "illama_t"
    assert found.kind == "emulated"
    first = found.front[0]
    assert (first.low_ms, first.high_ms, first.latency_error) == pytest.approx((3.6, 4.8, "±10.0%"))
    assert found._repr_html_().count("<tr>") == 5


def test_every_network_is_on_the_front_or_has_one_reason() -> None:
    found = recommend.recommend(wanted(max_ms=10.0))
    left = [name for group in found.left_out for name in group.models]
    assert sorted([*left, *(pick.model for pick in found.front)]) == sorted(entry.name for entry in known.entries())
    reasons = {name: group.reason for group in found.left_out for name in group.models}
    assert reasons["mnasnet_tv_050"] == "another is as fast and more accurate"
    assert reasons["illama_t"] == "slower than 10 ms"
    assert reasons["davit_3m"] == "no published top-1"
    assert reasons["emo2_1m"] == "no fp32 file: no such operator"
    assert reasons["care_s0"] == "not counted on cortex_a76 yet"


def test_any_precision_takes_the_fastest_file_and_says_that_its_error_is_unknown() -> None:
    found = recommend.recommend(wanted(precision="any", max_ms=5.5))
    assert {pick.precision for pick in found.front} == {"int8"}
    assert found.best.model == "mnasnet_a1_050"
    assert "not known for int8" in found.best.latency_error


def test_limits_of_size_license_and_task() -> None:
    assert recommend.recommend(wanted(max_mb=8.2)).best.model == "mnasnet_small"
    assert recommend.recommend(wanted(task="dense")).best.model == "shvit_s1"
    mit = recommend.recommend(wanted(license="MIT"))
    assert [pick.model for pick in mit.front] == ["shvit_s1"]
    assert all(
        pick.license.startswith(("MIT", "Apache")) for pick in recommend.recommend(wanted(license="permissive")).front
    )


def test_the_command_names_weights_that_are_published() -> None:
    commands = {pick.model: pick.command for pick in recommend.recommend(wanted()).front}
    assert commands["shvit_s1"] == "mobilezoo export shvit_s1 --pretrained=in1k --to litert --precision fp32"


def test_a_command_names_no_recipe_that_there_is_not() -> None:
    trained = [recommend._way(entry, "fp32")[1].split() for entry in known.entries() if not entry.is_peer]
    recipes = {words[2] for words in trained if words[1] == "train"}
    assert recipes <= {*config_names("train"), "RECIPE.yaml"}


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"max_ms": 0.5}, r"--max-ms 0.5: the fastest of 5 files on cortex_a76 is mnasnet_small fp32, 4.00 ms"),
        ({"max_mb": 0.1}, r"--max-mb 0.1: the smallest file is mnasnet_small fp32, 8.00 MB"),
        ({"license": "GPL"}, r"no network has weights under a license 'GPL': there are Apache-2.0, "),
    ],
)
def test_limits_that_nothing_meets_are_one_line_with_the_nearest(limits: dict[str, Any], line: str) -> None:
    with pytest.raises(MobilezooError, match=line):
        recommend.recommend(wanted(**limits))


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"device": "cortex_a67"}, "did you mean cortex_a76"),
        ({"precision": "int7"}, "did you mean int8"),
    ],
)
def test_unknown_names_are_one_line(limits: dict[str, Any], line: str) -> None:
    with pytest.raises(UnknownNameError, match=line):
        recommend.recommend(wanted(**limits))


def test_another_device_measures_the_candidates_until_they_are_too_slow() -> None:
    asked: list[str] = []

    def measure(model: str, config: Any, hooks: Any) -> LatencyReport:
        asked.append(model)
        ms = {"mnasnet_small": 3.0, "mnasnet_a1_050": 11.0, "shvit_s1": 12.0}[model]
        device = DeviceInfo(name=config.device, kind="host", runtime="LiteRT")
        nothing = {"load_ms": None, "first_run_ms": None, "sentinel_before_ms": None, "sentinel_after_ms": None}
        described = {"artifact": "a", "artifact_sha256": "0", "target": "litert", "precision": "fp32", "model": model}
        return LatencyReport(
            device=device, protocol=Protocol(), samples_ms=(ms, ms, ms), measured_at="now", **described, **nothing
        )

    found = recommend.recommend(wanted(device="host", max_ms=10.0), measure=measure)
    assert asked == ["mnasnet_small", "mnasnet_a1_050", "shvit_s1"]
    assert found.kind == "host"
    assert [(pick.model, pick.latency_ms) for pick in found.front] == [("mnasnet_small", 3.0)]
    reasons = {name: group.reason for group in found.left_out for name in group.models}
    assert reasons["illama_t"] == "not measured: 2 faster candidates are too slow already"


def test_an_estimate_of_another_emulated_core_does_not_claim_its_error_for_int8() -> None:
    assert error_in_words(7.7, "fp32", "fp32") == "±7.7%"

    def measure(model: str, config: Any, hooks: Any) -> LatencyReport:
        estimate = Estimate(latency_ms=3.0, low_ms=2.9, high_ms=3.1, error_percent=7.7, basis="b")
        device = DeviceInfo(name=config.device, kind="emulated", runtime="LiteRT")
        nothing = {"load_ms": None, "first_run_ms": None, "sentinel_before_ms": None, "sentinel_after_ms": None}
        described = {"artifact": "a", "artifact_sha256": "0", "target": "litert", "precision": "int8", "model": model}
        return LatencyReport(
            device=device, protocol=Protocol(), samples_ms=(3.0,), measured_at="now", **described, **nothing
        ).model_copy(update={"estimate": estimate})

    found = recommend.recommend(wanted(device="host", precision="int8"), measure=measure)
    assert found.best.latency_error == "±7.7% on fp32 files, not known for int8"


def test_a_list_says_what_is_not_counted() -> None:
    rows = [
        {"name": name, "top1": None, "top1_distilled": None, "macs": 1, "params": 1} for name in ("care_s0", "shvit_s1")
    ]
    found = list_latency.in_order(list_latency.with_latency(rows, "cortex_a76", "int8"), "latency")
    assert [(row["name"], row["latency_ms"], row["latency_reason"]) for row in found] == [
        ("shvit_s1", 6.0, ""),
        ("care_s0", None, "not counted yet"),
    ]
    with pytest.raises(UnknownNameError, match="recommend --device pixel"):
        list_latency.with_latency(rows, "pixel", "int8")
    with pytest.raises(MobilezooError, match="--sort latency needs a core"):
        list_latency.in_order(rows, "latency")
