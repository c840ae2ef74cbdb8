"""The Python API does what the commands do, with typed records, and shows them in notebooks."""

import importlib
import inspect
from pathlib import Path

import pytest

import mobilezoo
from mobilezoo.artifacts import Checkpoint
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.notebook import Records
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.evaluate import Scores
from mobilezoo_export import ExportConfig

QUICK = ("train.epochs=1", "train.schedule.warmup_epochs=0", "data.workers=0")


def test_packages_of_the_same_name_stay_functions_and_packages() -> None:
    for name in ("train", "search", "report"):
        package = importlib.import_module(f"mobilezoo.{name}")
        assert getattr(mobilezoo, name) is package
        assert callable(package)
        assert "config" in inspect.signature(package).parameters or name == "report"
    assert set(mobilezoo.__all__) <= {name for name in mobilezoo.__all__ if getattr(mobilezoo, name) is not None}


@pytest.mark.slow
def test_from_a_recipe_to_a_timed_file(tmp_path: Path) -> None:
    heard: list[str] = []
    hooks = mobilezoo.Hooks(on_message=heard.append, on_progress=lambda what, done, total: heard.append(what))
    best = mobilezoo.train("digits", *QUICK, out=tmp_path / "run")
    assert isinstance(best, Checkpoint)
    files = mobilezoo.export(best.path, to="onnx", out=tmp_path / "files", hooks=hooks)
    assert isinstance(files, Records)
    assert [file.status for file in files] == ["exported"]
    assert any("onnx fp32" in line for line in heard)
    path = files[0].path
    assert path is not None
    scores = mobilezoo.evaluate(path, workers=0, data="digits")
    assert isinstance(scores, Scores)
    assert scores.pytorch is not None
    assert scores.top1 == pytest.approx(scores.pytorch.top1, abs=0.5)
    report = mobilezoo.profile(path, "default", "use_cache=false")
    assert report.samples_ms
    page = mobilezoo.report(tmp_path, tmp_path / "page.html")
    assert page.stat().st_size > 10_000
    for shown in (best, files, scores, report):
        html = shown._repr_html_()
        assert html.startswith("<table>")
        assert html.count("<tr>") >= 2


def test_a_config_may_be_a_record(tmp_path: Path) -> None:
    recipe = TrainConfig.parse({"model": "mnasnet_small", "data": {"source": "folder:/nowhere"}})
    with pytest.raises(MobilezooError, match="dataset folder not found: '/nowhere'"):
        mobilezoo.train(recipe, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown key 'tragets'"):
        mobilezoo.export("shvit_s1", ExportConfig(), "tragets=[onnx]")


def test_a_mistake_has_the_text_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from mobilezoo.cli.main import main

    with pytest.raises(MobilezooError) as caught:
        mobilezoo.export("shvit_s1", to="litrt")
    assert "did you mean litert?" in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["export", "shvit_s1", "--to", "litrt"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_text_of_records_is_escaped_in_a_table() -> None:
    scores = Scores(model="<b>", data="x", runs_in="y", images=1, top1=50.0, top5=100.0, loss=None)
    assert "<b>" not in scores._repr_html_()
    assert "&lt;b&gt;" in scores._repr_html_()
    assert "loss" not in Records([scores])._repr_html_()
