"""A search as a user runs it: run, status, front, finetune, report; and going on from what lies in its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.cli.main import main

pytestmark = pytest.mark.nightly  # the demo searches in CI
QUICK = ("train.epochs=1", "train.schedule.warmup_epochs=0", "train.resolution=16")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as done:
            main(["search", *args])
        out = capsys.readouterr()
        assert int(done.value.code or 0) == code, out.err
        # Converters write to the descriptor, which is silenced; pytest's own stream is not.
        return json.loads(out.out[out.out.index("{") :]) if "--json" in args else out.out + out.err

    return run


def test_a_search_from_run_to_a_finished_file(call: Any, tmp_path: Path) -> None:
    for module in ("optuna", "litert_torch", "ai_edge_litert", "plotly"):
        pytest.importorskip(module)
    run = ("run", "digits", *QUICK, "check_target=false", "devices=host", "goal=front", "further=size_mb")
    found = call(*run, "engine=nsga2", "trials=2", "--json", "-q")
    study = "runs/search-digits"
    assert [t["number"] for t in found["trials"]] == [0, 1]
    assert all(t["size_mb"] > 0 for t in found["trials"])
    assert all(found["trials"][n]["remeasured"]["host"]["ms"] > 0 for n in found["front"])
    assert call("front", study, "--json") == found
    assert call("worker", study, "--json", "-q") == found
    assert "best" in call("front", study)
    assert "host ms again" in call("front", study)
    assert call("status", study, "--json")["states"]["complete"] == 2
    assert "2 of 2" in call("status", study)

    done = call("finetune", study, *QUICK, "train.epochs=2", "--json", "-q")
    assert done["number"] == found["best"]
    assert Path(done["file"]).is_file()
    assert done["top1"] == pytest.approx(done["file_top1"], abs=1.0)
    assert done["latency"]["host"]["ms"] > 0
    assert call("finetune", study, *QUICK, "train.epochs=2", "--json", "-q")["top1"] == done["top1"]
    assert "no complete trial has this number" in call("finetune", study, "--member", "7", code=2)

    assert "page.html" in call("report", study, "--out", "page.html")
    assert "measured again" in (tmp_path / "page.html").read_text()

    again = call("run", f"{study}/search.yaml", "trials=3", "--json", "-q")
    assert again["trials"][:2] == found["trials"]
    assert "another objective" in call("run", f"{study}/search.yaml", "objective.target_ms=5", code=2)
