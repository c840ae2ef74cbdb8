"""`mobilezoo plugins` names what was found and from where; a plugin that fails is one line of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.cli.main import main
from mobilezoo.plugins import KINDS, Plugin
from mobilezoo.registry import Registry
from mobilezoo.workflows.list_plugins import REGISTRIES


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as done:
        main(["plugins", "--json"])
    assert done.value.code == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_every_kind_has_its_table() -> None:
    from mobilezoo.plugins import resolve

    assert tuple(REGISTRIES) == KINDS
    for kind, place in REGISTRIES.items():
        table = resolve(place)
        assert isinstance(table, Registry)
        assert table.field == kind


def test_good_and_bad_things_are_listed_side_by_side(
    install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "theirs_1.yaml").write_text("family: mbconv\n")
    install(
        broken=None,
        empty=Plugin(),
        good=Plugin(rewards={"linear": "operator:sub"}, configs=str(tmp_path)),
        twice=Plugin(rewards={"tunas": "operator:sub"}),
        wrong=Plugin(rewards={"gone": "no_such_package:f", "near": "operator:subb", "text": "json:__name__"}),
    )
    found = {(row["plugin"], row["name"]): row for row in rows(capsys)}
    states = {key: row["state"] for key, row in found.items()}
    assert found["good", "linear"] == {
        "plugin": "good",
        "package": "unknown package",
        "kind": "rewards",
        "name": "linear",
        "place": "operator:sub",
        "state": "ok",
    }
    assert found["good", "theirs_1"]["kind"] == "configs/models"
    assert "No module named 'plugin_broken'" in states["broken", ""]
    assert states["empty", ""] == "adds nothing"
    assert "reward 'tunas' is given twice" in states["twice", "tunas"]
    assert "No module named 'no_such_package'" in states["wrong", "gone"]
    assert "module 'operator' has no 'subb': did you mean" in states["wrong", "near"]
    assert "is of the wrong kind: expected" in states["wrong", "text"]
    assert all("\n" not in state for state in states.values())


def test_the_table_says_where_to_begin_when_there_are_none(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install()
    with pytest.raises(SystemExit) as done:
        main(["plugins"])
    assert done.value.code == 0
    assert "no plugins installed" in capsys.readouterr().out
    install(good=Plugin(rewards={"linear": "operator:sub"}))
    with pytest.raises(SystemExit):
        main(["plugins"])
    assert "operator:sub" in capsys.readouterr().out
