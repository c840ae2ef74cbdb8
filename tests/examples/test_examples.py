"""The short examples and the notebook run from the first line to the last."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import mobilezoo

EXAMPLES = Path(__file__).parents[2] / "examples"


def cells() -> list[str]:
    """The code of the notebook."""
    tour = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in tour["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples train is a smaller network here, for fewer epochs."""
    train = mobilezoo.train
    smaller = ("model=mnasnet_small", "train.resolution=32", "train.epochs=2", "train.schedule.warmup_epochs=1")
    monkeypatch.setattr(mobilezoo, "train", lambda *args, **kwargs: train(*args, *smaller, **kwargs))
    export = mobilezoo.export
    monkeypatch.setattr(mobilezoo, "export", lambda *args, **kwargs: export(*args, **{**kwargs, "precision": "fp32"}))


@pytest.mark.slow
def test_the_notebook_runs_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    for cell in cells():
        exec(compile(cell, "tour.ipynb", "exec"), seen)
    assert seen["scores"].top1 == pytest.approx(seen["scores"].pytorch.top1, abs=0.5)
    assert seen["page"].is_file()
    for name in ("best", "files", "scores"):
        assert seen[name]._repr_html_().startswith("<table>")


@pytest.mark.nightly
def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, small: None) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "train_and_export.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("top-1" in line for line in lines)


@pytest.mark.nightly
def test_a_network_of_timm_is_exported_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / "timm_to_phone.py"))
    example["main"](["test_efficientnet"])
    assert "1 XNNPACK partitions" in capsys.readouterr().out


SCRIPTS = [file for file in sorted(EXAMPLES.glob("*.py")) if "__main__" in file.read_text(encoding="utf-8")]
"""Without what several of them share."""


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda path: path.name)
def test_every_example_says_how_it_is_run(file: Path) -> None:
    assert f"python examples/{file.name}" in file.read_text(encoding="utf-8")


def test_every_cell_is_python() -> None:
    for cell in cells():
        compile(cell, "tour.ipynb", "exec")
