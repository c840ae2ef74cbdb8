"""`profile`, `device` and `latency` as a user calls them, on a tiny exported file and a database of their own."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, save_record
from mobilezoo.cli.main import main
from mobilezoo.files import sha256_of, size_of
from mobilezoo.latency_report import DeviceInfo, LatencyReport
from mobilezoo_latency import Store
from mobilezoo_latency.protocol import TIERS


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "latency.db"))
    quick = {"warmup_s": 0.0, "min_s": 0.01, "min_runs": 8, "max_repeats": 1}
    calm = {"sentinel_tolerance": 100.0, "drift_tolerance": None, "stable_tolerance": 100.0, "max_other_load": 1.0}
    monkeypatch.setitem(TIERS, "screen", TIERS["screen"].model_copy(update={**quick, **calm}))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return build(tmp_path / "tiny.fp32.onnx")


def build(path: Path, **changes: object) -> Path:
    """One 3x3 convolution as an ONNX file with its record."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 16, 16]) for name in "xy"]
    graph = helper.make_graph([node], "tiny", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    record = Artifact(
        path=path.name,
        target="onnx",
        precision="fp32",
        model="tiny",
        input=InputSpec(shape=(1, 3, 16, 16)),
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3),
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        parity=None,
        why_not_runnable="a test file",
        tools={},
    )
    save_record(path, record.model_copy(update=changes))
    return path


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(args))
    said = capsys.readouterr()
    return int(done.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    "words",
    [
        ("device", "list"),
        ("device", "check"),
        ("device", "setup"),
        ("latency", "list"),
        ("latency", "show"),
        ("latency", "export"),
        ("latency", "import"),
        ("latency", "report"),
    ],
)
def test_every_command_teaches_by_example(words, capsys):
    code, out, _ = call(capsys, *words, "--help")
    assert code == 0
    assert "Example" in out
    assert f"mobilezoo {' '.join(words)}" in out


def test_a_profile_is_kept_shown_as_cached_and_listed(tiny, capsys):
    code, out, err = call(capsys, "profile", str(tiny), "--json", "--quiet")
    assert code == 0, err
    (first,) = json.loads(out)
    assert not first["cached"]
    assert first["summary"]["median_ms"] > 0
    (again,) = json.loads(call(capsys, "profile", str(tiny), "--json", "--quiet")[1])
    assert again["cached"] != bool(first["noisy"])  # a noisy result never answers for a measurement
    rows = json.loads(call(capsys, "latency", "list", "--json", "--where", "model=tiny")[1])
    assert {row["kind"] for row in rows} == {"host"}
    assert "host" in call(capsys, "latency", "list")[1]
    assert "samples (--json prints them)" in call(capsys, "latency", "show", "1")[1]


@pytest.mark.slow
def test_two_files_are_compared_in_turns(tiny, tmp_path, capsys):
    other = build(tmp_path / "other.fp32.onnx")
    code, out, err = call(capsys, "profile", str(tiny), str(other), "--compare", "--json", "--quiet")
    assert code == 0, err
    ratio = json.loads(out)
    assert ratio["ratio_low"] <= ratio["ratio"] <= ratio["ratio_high"]


def test_results_travel_as_files_and_become_a_page(tiny, tmp_path, capsys, monkeypatch):
    assert call(capsys, "profile", str(tiny), "--quiet")[0] == 0
    assert call(capsys, "latency", "report", "--out", str(tmp_path / "page.html"))[0] == 0
    assert "tiny" in (tmp_path / "page.html").read_text()
    assert "1 results" in call(capsys, "latency", "export", str(tmp_path / "all.jsonl"))[1]
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "other.db"))
    assert "1 results added" in call(capsys, "latency", "import", str(tmp_path / "all.jsonl"))[1]
    assert len(Store().rows()) == 1


def test_devices_are_listed_with_their_kind_and_checked(capsys):
    rows = {row["name"]: row for row in json.loads(call(capsys, "device", "list", "--json")[1])}
    assert rows["cortex_a76"]["type"] == "emulated"
    code, out, _ = call(capsys, "device", "check", "host", "--json")
    assert (code, json.loads(out)[0]["ready"]) == (0, True)
    code, out, _ = call(capsys, "device", "check", "ssh")
    assert code == 2
    assert "has no host" in " ".join(out.split())


def test_a_file_whose_branches_folded_away_is_timed_only_when_asked_for(tmp_path, capsys):
    folded = build(tmp_path / "folded.fp32.onnx", zero_gammas=("a.norm.weight",))
    code, _, err = call(capsys, "profile", str(folded), "--quiet")
    assert code == 2
    assert "--allow-folded" in err
    assert call(capsys, "profile", str(folded), "--allow-folded", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["profile", "x.tflite", "--device", "hots"], "did you mean host"),
        (["profile", "x.tflite", "--tier", "scren"], "did you mean screen"),
        (["profile", "x.tflite", "--compare"], "--compare takes two files, got 1"),
        (["device", "check", "cortex_a77"], "did you mean cortex_a7"),
        (["device", "setup", "emulater"], "did you mean emulator"),
        (["latency", "show", "7"], "no latency result 7"),
        (["latency", "list", "--where", "color=red"], "expected COLUMN=VALUE"),
        (["latency", "export", "all.xlsx"], ".jsonl"),
        (["latency", "import", "missing.jsonl"], "missing.jsonl"),
        (["latency", "report"], "no kept latency fits"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, expected, capsys):
    code, _, err = call(capsys, *args)
    assert code == 2
    (line,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert expected in line


def test_a_core_ml_file_is_checked_here_and_never_timed(tiny, capsys):
    coreml = build(tiny.with_name("tiny.fp32.mlpackage"), target="coreml")
    code, _, err = call(capsys, "profile", str(coreml), "--quiet")
    assert code == 2
    assert "coreml" in err


@pytest.mark.parametrize(
    ("target", "device", "expected"),
    [
        ("litert", "cortex_a76", "mobilezoo device setup emulator"),
        ("litert", "ssh", "has no host"),
        ("litert", "browser", "mobilezoo device setup browser"),
        ("coreml", "mac", "needs macOS"),
        ("coreml", "iphone", "needs macOS"),
        ("onnx", "host_litert", "use --device host"),
        ("coreml", "cortex_a76", "emulated cores run litert, onnx, executorch files"),
        ("onnx", "mac", "runs Core ML files"),
    ],
)
def test_a_device_that_cannot_measure_says_what_to_do(target, device, expected, tmp_path, capsys, monkeypatch):
    if "macOS" in expected and platform.system() == "Darwin":
        pytest.skip("this is macOS")
    for name in ("MOBILEZOO_EMULATOR", "MOBILEZOO_BROWSER"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    file = build(tmp_path / "tiny.fp32.onnx", target=target)
    code, _, err = call(capsys, "profile", str(file), "--device", device, "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert expected in err


def test_without_a_phone_the_command_to_start_is_named(tmp_path, capsys):
    pytest.importorskip("adbutils")
    yaml = tmp_path / "phone.yaml"
    yaml.write_text("type: adb\nport: 1\n")
    file = build(tmp_path / "tiny.fp32.onnx", target="litert")
    code, _, err = call(capsys, "profile", str(file), "--device", str(yaml), "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "adb start-server" in err


def test_a_damaged_database_is_kept_aside_and_named(tiny, tmp_path, capsys):
    (tmp_path / "latency.db").write_bytes(b"no database at all" * 100)
    code, _, err = call(capsys, "profile", str(tiny), "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "kept aside as" in err
    assert call(capsys, "profile", str(tiny), "--quiet")[0] == 0


@pytest.mark.slow
def test_a_name_is_exported_and_counted_on_an_emulated_core_and_found_again(tmp_path, capsys, monkeypatch):
    from mobilezoo.installed import STAMP
    from mobilezoo_latency.emulator.layout import home

    if not (home() / STAMP).is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    monkeypatch.chdir(tmp_path)
    how = ("profile", "mnasnet_small", "--resolution", "96", "--device", "cortex_a76", "--json", "--quiet")
    code, out, err = call(capsys, *how)
    assert code == 0, err
    (first,) = json.loads(out)
    assert first["device"]["kind"] == "emulated"
    assert first["counts"]["macs"] > 10e6
    assert first["estimate"] is None or first["summary"]["median_ms"] == first["estimate"]["latency_ms"]
    (again,) = json.loads(call(capsys, *how)[1])
    assert again["cached"], "the same name gives the same file"
    (fresh,) = json.loads(call(capsys, *how, "--no-cache")[1])
    assert fresh["counts"] == first["counts"]


def test_a_list_cuts_long_names_and_show_does_not(capsys):
    named = DeviceInfo(name="phone", kind="phone", runtime="LiteRT")
    plain = {"artifact": "a", "target": "litert", "precision": "fp32", "device": named, "protocol": TIERS["screen"]}
    nothing = dict.fromkeys(("load_ms", "first_run_ms", "sentinel_before_ms", "sentinel_after_ms"))
    noisy = ("why " * 1000,)
    report = LatencyReport(
        artifact_sha256="a", model="m" * 5000, samples_ms=(1.0,), measured_at="now", noisy=noisy, **plain, **nothing
    )
    Store().add(report)
    assert len(call(capsys, "latency", "list")[1]) < 5000
    assert "m" * 5000 in call(capsys, "latency", "show", "1")[1]
