"""The verbs as a user calls them: help that teaches, JSON for machines, one line and exit code 2 for mistakes."""

import json
from pathlib import Path

import pytest

from mobilezoo.cli.main import main

VERBS = ("list", "show", "train", "eval", "convert", "card", "export", "profile", "report", "schema", "demo", "plugins")
SEARCH = ("run", "worker", "status", "front", "finetune", "report")


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(args))
    return int(done.value.code or 0)


@pytest.mark.parametrize("verb", [*VERBS, *(f"search {name}" for name in SEARCH)])
def test_every_verb_teaches_by_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*verb.split(), "--help") == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"mobilezoo {verb}" in text


def test_list_and_show_print_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "shvit*", "--json") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [
        "shvit_s1",
        "shvit_s2",
        "shvit_s3",
        "shvit_s4",
    ]
    assert call("show", "mnasnet_small", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert sum(s["params"] for s in table["stages"]) == table["params"]


def test_parts_of_configs_and_spaces_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from mobilezoo.layers.attention import attention_names
    from mobilezoo.models.mixers import MIXERS

    assert call("list", "--parts", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert ["none", *(row["name"] for row in rows if row["key"] == "attention")] == list(attention_names())
    assert [row["name"] for row in rows if row["key"] == "block"] == list(MIXERS)
    assert all(row["description"] for row in rows)
    assert call("list", "ulsam*", "--parts") == 0
    assert "ULSAM" in capsys.readouterr().out
    assert call("list", "zzz", "--parts") == 2


def test_show_takes_a_copied_yaml_and_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mobilezoo.config import find_config

    text = find_config("models", "mobilenetv2_ca_100").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("resolution: 224", "resolution: 96"))
    assert call("show", str(mine)) == 0
    assert "mine (mbconv, 96 px)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["show", "shvit_s"], "did you mean shvit_s"),
        (["show", "nowhere.yaml"], "config file not found: 'nowhere.yaml'"),
        (["show", "shvit_s1", "resolutoin=5"], "did you mean resolution"),
        (["list", "zzz*"], "unknown model"),
        (["train", "digit"], "did you mean digits"),
        (["train", "digits", "train.epochs=x"], "train.epochs = 'x'"),
        (["train", "digits", "data.source=folder:/nowhere"], "dataset folder not found: '/nowhere'"),
        (["eval", "shvit_s1", "--data", "digits"], "random weights"),
        (["eval", "shvit_s1", "--checkpoint", "/nowhere.pth"], "/nowhere.pth"),
        (["eval", "missing.safetensors"], "missing.safetensors"),
        (["eval", "missing.onnx"], "missing.onnx"),
        (["export", "timm:mobilenet_v9"], "unknown timm model"),
        (["export", "shvit_s1", "--to", "tflit"], "tflit"),
        (["profile", "missing.tflite"], "missing.tflite"),
        (["report", "/nowhere"], "/nowhere"),
        (["search", "run", "nothing"], "unknown search config 'nothing'"),
        (["search", "nothing"], "unknown search config 'nothing'"),
        (["search", "run", "digits", "space.stages=[]"], "the space is empty"),
        (["search", "run", "digits", "space.resolution=[4]"], "resolutions of at least the total stride 8"),
        (["search", "run", "digits", "storage=nonsense"], "expected a database URL"),
        (["search", "run", "digits", "storage=postgresql+psycopg://me@127.0.0.1:1/x"], "127.0.0.1"),
        (["search", "status", "nowhere"], "run folder of a search not found: 'nowhere'"),
        (["search", "front", "/"], "holds no search.yaml"),
        (["search", "worker", "sqlite:///nowhere.db"], "study database 'nowhere.db' not found"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    args: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    captured = capsys.readouterr()
    (line,) = [text for text in captured.err.splitlines() if text.startswith("error: ")]
    assert expected in line
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_ignores_nothing_that_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", "--matrix", "shvit_s1", "softmax=true", "--batch", "2") == 2
    assert "leave KEY=VALUE, --batch out" in capsys.readouterr().err
