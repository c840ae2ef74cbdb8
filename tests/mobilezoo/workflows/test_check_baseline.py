"""Every planted regression is found, and files that only look different pass."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mobilezoo.cli.main as cli
from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, save_record
from mobilezoo.errors import MobilezooError
from mobilezoo.files import sha256_of, size_of
from mobilezoo.reading import read_yaml
from mobilezoo.workflows.check_baseline import CheckLimits, CheckOptions, check, settled

ROOT = Path(__file__).resolve().parents[3]
UNTIMED = CheckOptions(latency=False)
pytestmark = pytest.mark.usefixtures("read_inline")


@pytest.fixture
def baseline(tmp_path: Path, small_onnx: Callable[..., Path]) -> Path:
    """A file with its record, which is what `check` is given."""
    file = small_onnx(tmp_path / "old.onnx")
    record = Artifact(
        path=file.name,
        target="onnx",
        precision="fp32",
        model="small",
        input=InputSpec(shape=(1, 3, 16, 16)),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        sha256=sha256_of(file),
        size_bytes=size_of(file),
        parity=None,
        why_not_runnable="made in a test",
        tools={},
    )
    return save_record(file, record)


def changed(baseline: Path, new: Path, *, weights: float = 1.0, ballast: int = 0, operator: bool = False) -> Path:
    """The baseline's file with scaled weights, further metadata, or one more operator."""
    model = onnx.load(baseline.with_suffix(""))
    held = model.graph.initializer[0]
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(weights), held.name))
    model.metadata_props.add(key="note", value="x" * max(1, ballast))
    if operator:
        model.graph.node[-1].output[0] = "mean"
        model.graph.node.append(onnx.helper.make_node("Relu", ["mean"], ["y"]))
    onnx.save(model, new)
    return new


def failed(baseline: Path, file: Path, options: CheckOptions = UNTIMED) -> list[str]:
    (checked,) = check(baseline, [file], options).files
    return [one.name for one in checked.compared if one.status == "failed"]


def test_equal_files_pass_and_each_regression_is_found(tmp_path: Path, baseline: Path) -> None:
    file = baseline.with_suffix("")
    roomy = CheckOptions(CheckLimits(max_size=2.0), latency=False)
    assert failed(baseline, changed(baseline, tmp_path / "a.onnx"), roomy) == []
    ballast = file.stat().st_size // 20
    assert failed(baseline, changed(baseline, tmp_path / "b.onnx", ballast=ballast)) == ["size"]
    assert failed(baseline, changed(baseline, tmp_path / "c.onnx", weights=1.05), roomy) == ["parity"]
    assert "operators" in failed(baseline, changed(baseline, tmp_path / "d.onnx", operator=True), roomy)


def test_the_same_bytes_need_no_measurement(tmp_path: Path, baseline: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(baseline.with_suffix("").read_bytes())
    (checked,) = check(baseline, [copy]).files
    assert [one.name for one in checked.compared] == ["size"]
    assert checked.passed


def test_a_record_alone_compares_what_it_holds(tmp_path: Path, baseline: Path) -> None:
    new = changed(baseline, tmp_path / "new.onnx")
    baseline.with_suffix("").unlink()
    (checked,) = check(baseline, [new], CheckOptions(CheckLimits(max_size=2.0), latency=False)).files
    status = {one.name: one.status for one in checked.compared}
    assert status == {"size": "passed", "operators": "skipped", "partitions": "skipped", "parity": "skipped"}


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, baseline: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\xff")
    with pytest.raises(MobilezooError, match="cannot be read as ONNX"):
        check(baseline, [broken], UNTIMED)
    with pytest.raises(MobilezooError, match="got no file"):
        check(baseline, [], UNTIMED)
    record = json.loads(baseline.read_text(encoding="utf-8")) | {"target": "litert"}
    baseline.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(MobilezooError, match="compare alike"):
        check(baseline, [changed(baseline, tmp_path / "new.onnx")], UNTIMED)


def test_sessions_go_on_until_they_show_on_which_side_a_file_is() -> None:
    assert not settled([], 1.03)
    assert not settled([1.0], 1.03)  # one in some dozens is off by that much
    assert not settled([1.05], 1.03)
    assert settled([1.0, 1.02], 1.03)
    assert settled([1.05, 1.04], 1.03)
    assert not settled([1.05, 1.0], 1.03)
    assert not settled([1.05, 1.0, 1.02], 1.03)
    assert settled([1.05, 1.0, 1.02, 1.01], 1.03)
    assert settled([1.05, 1.0] * 3 + [1.05], 1.03)


@pytest.mark.parametrize(
    ("ratios", "status"), [([1.0, 1.01], "passed"), ([1.05, 1.06], "failed"), ([1.05, 1.0, 1.02, 1.01], "passed")]
)
def test_a_file_is_slower_where_fresh_processes_agree(
    ratios: list[float],
    status: str,
    tmp_path: Path,
    baseline: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = list(ratios)
    monkeypatch.setattr("mobilezoo_latency.compare", lambda *_, **__: SimpleNamespace(ratio=left.pop(0)))
    monkeypatch.setattr("mobilezoo.workflows.check_baseline._cycles", lambda pair: skip())
    options = CheckOptions(CheckLimits(max_size=2.0))
    (checked,) = check(baseline, [changed(baseline, tmp_path / "new.onnx")], options).files
    assert {one.name: one.status for one in checked.compared}["latency"] == status
    assert left == []


def skip() -> None:
    raise MobilezooError("no core here")


def test_exit_code_three_marks_a_regression(tmp_path: Path, baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = changed(baseline, tmp_path / "new.onnx", weights=1.05)
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", str(baseline), str(new), "--no-latency", "--max-size", "2"])
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert "FAILED  parity" in out
    assert "at least 70" in out


def test_the_action_passes_its_inputs_as_variables_and_runs_a_command_that_exists() -> None:
    action: dict[str, Any] = read_yaml(ROOT / "action.yml")
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert action["runs"]["using"] == "composite"
    assert not any("${{" in script for script in scripts)  # an input could end the quotes it stands in
    assert any("python -m mobilezoo check" in script for script in scripts)
    (install,) = (script for script in scripts if "pip install" in script)
    for extras, asked in (("", "/there"), ("litert,onnx", "/there[litert,onnx]")):
        command = ["bash", "-c", f'python() {{ echo "$@"; }}; {install}']
        done = subprocess.run(
            command, env={"EXTRAS": extras, "SOURCE": "/there"}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["-m", "pip", "install", asked]
    assert all("@" in step["uses"] and len(step["uses"].split("@")[1]) == 40 for step in action["runs"]["steps"][:1])


def test_top1_feeds_a_file_without_a_record_as_the_baseline(
    tmp_path: Path, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[Artifact | None] = []

    def scored(file: Path, source: object, classes: object, record: Artifact | None = None) -> SimpleNamespace:
        fed.append(record)
        return SimpleNamespace(top1=50.0, images=2)

    monkeypatch.setattr("mobilezoo.workflows.evaluate.evaluate_file", scored)
    new = changed(baseline, tmp_path / "new.onnx")
    options = CheckOptions(CheckLimits(max_size=2.0), data="folder:photos", latency=False)
    assert failed(baseline, new, options) == []
    assert fed[0] is None
    assert fed[1] is not None
    assert fed[1].preprocessing.mean == (0.5,) * 3
