"""The doctor answers for every file: what cannot be done is a line, and conditions decide the exit code."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mobilezoo.cli.main as cli
from mobilezoo.artifacts import Artifact, InputSpec, Parity, Preprocessing, Top1Drop, save_record
from mobilezoo.cli.doctor import print_report
from mobilezoo.doctor_report import Anatomy, CoreCounts, DoctorReport, Finding, UnitVerdict
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.files import sha256_of, size_of
from mobilezoo.report.doctor_page import render
from mobilezoo.workers import Worker
from mobilezoo.workflows.doctor import doctor
from mobilezoo.workflows.doctor_conditions import failing, parse_conditions
from mobilezoo.workflows.doctor_remedies import all_findings
from mobilezoo.workflows.model_options import ModelOptions

OnnxMaker = Callable[..., Path]


def report_of(**changes: Any) -> DoctorReport:
    anatomy = Anatomy(
        target="litert",
        inputs=(),
        outputs=(),
        ops={"CONV_2D": 3, "TRANSPOSE": 2},
        weights_bytes=4_000_000,
        biggest=(),
        weight_types={},
        activation_types={},
        scheme="none: float32",
        metadata={},
    )
    known: dict[str, Any] = {
        "path": "a.tflite",
        "sha256": "0",
        "size_bytes": 5_000_000,
        "target": "litert",
        "anatomy": anatomy,
    }
    return DoctorReport(**(known | changes))


def unit(name: str, **fields: Any) -> UnitVerdict:
    known: dict[str, Any] = {"unit": name, "how": "run", "status": "taken"}
    return UnitVerdict(**(known | fields))


GPU_PARTLY = (unit("xnnpack", partitions=1, outside={}), unit("gpu", status="partly", outside={"GATHER": 1}))


@pytest.mark.parametrize(
    ("condition", "changes", "failed"),
    [
        ("size>4.9MB", {}, True),
        ("size>5MB", {}, False),
        ("size=4.9MB", {}, True),
        ("weights>3900kB", {}, True),
        ("operators>4", {}, True),
        ("operators>5", {}, False),
        ("transpose>1", {"findings": (Finding(kind="transpose", text="two", count=2),)}, True),
        ("transpose>2", {"findings": (Finding(kind="transpose", text="two", count=2),)}, False),
        ("fallback", {"units": GPU_PARTLY}, True),
        ("fallback:xnnpack", {"units": GPU_PARTLY}, False),
        ("fallback:gpu>1", {"units": GPU_PARTLY}, False),
        ("fallback:npu", {"units": GPU_PARTLY}, True),  # nobody asked the NPU: that is no pass
        ("fallback", {"units": (unit("coreml", how="rules", status="none", outside={"GELU": 1}),)}, True),
        (
            "fallback",
            {"units": (*GPU_PARTLY[:1], unit("nnapi", how="rules", status="partly", outside={"A": 1}))},
            False,
        ),
        ("fallback:nnapi", {"units": (unit("nnapi", how="rules", status="partly", outside={"A": 1}),)}, True),
        ("fallback", {"units": (unit("gpu", status="refused", reason="too large"),)}, True),
        ("partitions", {"units": (unit("xnnpack", partitions=2, outside={"A": 1}),)}, True),
        ("partitions>2", {"units": (unit("xnnpack", partitions=2, outside={"A": 1}),)}, False),
        ("size>9MB, unread", {"anatomy": None}, False),
        ("dead", {"anatomy": None}, True),
    ],
)
def test_conditions_hold_where_they_should(condition: str, changes: dict[str, Any], failed: bool) -> None:
    assert bool(failing(parse_conditions(condition), report_of(**changes))) is failed


@pytest.mark.parametrize("wrong", ["size", "size>8miles", "dead:gpu", "transpose>2MB", "size>=3MB", "fallback gpu"])
def test_a_condition_that_is_not_understood_is_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError, match="--fail-on"):
        parse_conditions(wrong)
    with pytest.raises(UnknownNameError, match="did you mean transpose"):
        parse_conditions("transposes")


@pytest.mark.usefixtures("read_inline")
def test_exit_code_three_says_which_condition_holds(
    small_onnx: OnnxMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_onnx(tmp_path / "a.onnx")

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", str(file), "--static", *words])
        return int(ended.value.code or 0)

    assert run("--fail-on", "size>1MB,dead") == 0
    assert "transpose-pair: 1 pair of transposes" in capsys.readouterr().out
    assert run("--fail-on", "transpose-pair,dead", "--json", "--html", str(tmp_path / "a.html")) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["failed_on"] == ["transpose-pair: 1 pair of transposes that undo each other"]
    assert said["anatomy"]["ops"] == {"Transpose": 2, "Conv": 1, "ReduceMean": 1}
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "pair of transposes" in page
    assert "http" not in page.replace("http-equiv", "")
    assert run("--fail-on", "fallback") == 3  # nothing was run


@pytest.mark.usefixtures("read_inline")
def test_a_damaged_file_still_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\xff\xff")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(tmp_path / "a.onnx"), "--static", "--fail-on", "unread"])
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert "graph failed: 'a.onnx' is no ONNX file" in out
    assert "Traceback" not in out


def test_what_an_emulated_core_counts_is_never_a_phones_time(capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(counts=CoreCounts(core="a76", instructions=1, cycles=1.0, estimated_ms=2.0, error="±8.0%"))
    print_report(report)
    for said in (capsys.readouterr().out.lower(), render(report).lower()):
        assert "emulated" in said
        assert "estimated 2.00 ms" in said
        assert "mean error ±8.0%" in said
        assert "not timed" in said


def test_text_of_a_file_cannot_steer_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    page = render(report_of(path=hostile, findings=(Finding(kind="dead", text=hostile, count=1),)))
    assert "<script" not in page


@pytest.mark.usefixtures("read_inline")
def test_each_part_that_fails_is_a_line_and_the_others_answer(
    small_onnx: OnnxMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mobilezoo.workflows.doctor as workflow

    def broken(_: object) -> None:
        raise RuntimeError("no clock\nhere")

    monkeypatch.setattr(workflow, "_times", broken)
    found = doctor(small_onnx(tmp_path / "a.onnx"), units=())
    parts = {part.name: (part.status, part.reason) for part in found.parts}
    assert parts["time"] == ("failed", "RuntimeError: no clock")
    assert parts["xnnpack"][0] == "skipped"
    assert parts["host"] == ("done", "")
    assert found.anatomy is not None
    assert found.inputs_from == "4 crops of sample photographs"


@pytest.mark.usefixtures("read_inline")
def test_a_part_that_takes_too_long_is_a_line_and_the_others_answer(
    small_onnx: OnnxMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mobilezoo.workflows.doctor as workflow

    def endless(_: object) -> None:
        with Worker([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
            worker.call({}, 900.0)

    monkeypatch.setattr(workflow, "_times", endless)
    monkeypatch.setattr(workflow, "_counts", endless)
    monkeypatch.setattr(workflow, "_unit", lambda case, unit: endless(case))
    found = doctor(small_onnx(tmp_path / "a.onnx"), units=("cpu", "npu"), limit_s=0.3)
    parts = {part.name: (part.status, part.reason) for part in found.parts}
    for name in ("cpu", "npu", "time", "cycles"):
        assert parts[name] == ("skipped", "it takes more than 0.3 s here: --limit SECONDS waits longer")
    assert parts["host"][0] == "done"


def test_preprocessing_of_a_file_with_a_record_is_not_ignored(small_onnx: OnnxMaker, tmp_path: Path) -> None:
    file = small_onnx(tmp_path / "a.onnx")
    file.with_name("a.onnx.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="leave --preprocess out"):
        doctor(file, ModelOptions(preprocess="imagenet"), units=None)


@pytest.mark.usefixtures("read_inline")
def test_an_open_size_is_named_and_the_static_part_stays(small_onnx: OnnxMaker, tmp_path: Path) -> None:
    found = doctor(small_onnx(tmp_path / "a.onnx", sizes=(1, 3, "h", "w")), units=("gpu",))
    parts = {part.name: part for part in found.parts}
    assert parts["host"].status == "failed"
    assert "--resolution HEIGHTxWIDTH" in parts["host"].reason
    assert parts["gpu"].status == parts["time"].status == "skipped"
    assert [one.kind for one in found.findings if one.kind == "open-shape"] == ["open-shape"]


def record_of(**changes: Any) -> Artifact:
    known: dict[str, Any] = {
        "path": "a.tflite",
        "target": "litert",
        "precision": "fp32",
        "model": "m",
        "checkpoint": "../best of all.safetensors",
        "input": InputSpec(shape=(1, 3, 8, 8)),
        "preprocessing": Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        "sha256": "0",
        "size_bytes": 1,
        "parity": None,
        "why_not_runnable": "made in a test",
        "tools": {},
    }
    return Artifact(**(known | changes))


def int8_record(snr_db: float, drop: Top1Drop | None = None, target: str = "litert") -> Artifact:
    known: dict[str, Any] = {"max_abs": 0, "relative": 0, "top1_agreement": 1, "tolerance": 3}
    parity = Parity(inputs="", images=1, snr_db=snr_db, ran_in="", **known)
    fields: dict[str, Any] = {"precision": "int8", "target": target, "parity": parity, "top1_drop": drop}
    return record_of(why_not_runnable=None, **fields)


@pytest.mark.parametrize(
    ("snr_db", "lost", "found"), [(11.0, None, True), (19.0, None, False), (11.0, 0, False), (19.0, 9, True)]
)
def test_an_int8_file_that_loses_much_is_sent_to_16_bit_activations(
    snr_db: float, lost: int | None, found: bool
) -> None:
    drop = None
    if lost is not None:
        drop = Top1Drop(inputs="photos", images=100, top1_pytorch=90.0, top1=90.0 - lost, lost=lost, won=0)
    record = int8_record(snr_db, drop)
    findings = all_findings(None, (), record, 1, "litert", Path("runs/export/a.tflite"))
    assert [one.kind for one in findings] == ["accuracy"] * found
    for one in findings:
        assert one.command.endswith("--to litert --precision w8a16")
        assert "w8a16" in one.remedy
        assert "--max-drop 1" in one.remedy
    others = all_findings(None, (), int8_record(11.0, target="executorch"), 1, "executorch", Path("a.pte"))
    assert [(one.kind, one.command) for one in others] == [("accuracy", "")]
    assert "w8a16" not in others[0].remedy


@pytest.mark.parametrize(("scheme", "told"), [("int8", True), ("uint8", False)])
def test_operators_that_the_npu_leaves_of_signed_activations_have_a_remedy(scheme: str, told: bool) -> None:
    anatomy = report_of().anatomy
    assert anatomy is not None
    anatomy = anatomy.model_copy(update={"scheme": f"int8 weights per channel, {scheme} activations (static)"})
    verdict = unit("npu", status="partly", partitions=2, outside={"HardSigmoid": 1})
    (found,) = all_findings(anatomy, (verdict,), record_of(), 1, "onnx", Path("a.onnx"))
    assert found.command.endswith("--to onnx --precision int8 onnx_activations=uint8") is told


@pytest.mark.usefixtures("read_inline")
def test_a_file_that_is_only_read_is_judged_by_its_record_too(small_onnx: OnnxMaker, tmp_path: Path) -> None:
    file = small_onnx(tmp_path / "a.onnx")
    of_file = {"path": file.name, "sha256": sha256_of(file), "size_bytes": size_of(file)}
    save_record(file, int8_record(11.0, target="onnx").model_copy(update=of_file))
    assert "accuracy" in [one.kind for one in doctor(file, units=None).findings]
    file.with_name("a.onnx.json").write_text("{}", encoding="utf-8")
    parts = {part.name: part for part in doctor(file, units=None).parts}
    assert parts["record"].status == "failed"


def test_a_command_names_the_checkpoint_from_here_and_is_one_word_for_a_shell() -> None:
    record = record_of()
    anatomy = report_of().anatomy
    assert anatomy is not None
    anatomy = anatomy.model_copy(update={"findings": (Finding(kind="transpose", text="one", count=1),)})
    (found,) = all_findings(anatomy, (), record, 1, "litert", Path("runs/export/a.tflite"))
    assert found.command == "mobilezoo export 'runs/best of all.safetensors' --to litert"
