"""A name, a plugin's name or a place gives an object; what cannot be used is one line."""

from pathlib import Path
from typing import Any

import pytest

from mobilezoo.config import config_names, find_config
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.plugins import Plugin
from mobilezoo.registry import Registry, is_place


def registry() -> Registry[Any]:
    return Registry("engine", "engines", {"own": "json:dumps"}, callable, "a callable")


def test_own_names_plugins_names_and_places_are_loaded(install: Any) -> None:
    install(theirs=Plugin(engines={"loads": "json:loads"}))
    import json

    engines = registry()
    assert engines.names() == ["own", "loads"]
    assert [engines.load(name) for name in ("own", "loads", "json:load")] == [json.dumps, json.loads, json.load]
    assert "loads" in engines
    assert "json:load" in engines
    assert "other" not in engines


def test_a_plugin_that_cannot_be_used_stops_no_other(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    listed: Any = ["loads"]
    install(broken=None, listed=Plugin(engines=listed), wrong="text", good=Plugin(engines={"loads": "json:loads"}))
    assert registry().names() == ["own", "loads"]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert "plugin_listed:PLUGIN has engines that do not map names to places" in lines.pop(1)
    assert "'broken'" in lines[0]
    assert "No module named" in lines[0]
    assert "'wrong'" in lines[1]
    assert "is no mobilezoo.plugins.Plugin" in lines[1]
    with pytest.raises(
        UnknownNameError, match="unknown engine 'nothing': known: loads, own; plugin 'broken' was left out"
    ):
        registry().load("nothing")


def test_a_name_given_twice_is_refused_when_it_is_used(install: Any) -> None:
    install(a=Plugin(engines={"own": "json:loads", "fine": "json:loads"}))
    engines = registry()
    with pytest.raises(ConfigError, match=r"engine 'own' is given twice, by json:dumps \(mobilezoo\) and json:loads"):
        engines.load("own")
    assert engines.load("fine")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("no_such_package.module:Thing", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("json:dump_all", "module 'json' has no 'dump_all': did you mean dump"),
        ("json:__doc__", "is of the wrong kind: expected a callable"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(place: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry().load(place)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_are_told_from_names_and_paths() -> None:
    assert is_place("package.module:Thing")
    assert is_place("module:Thing.part")
    assert not any(map(is_place, ("folder:/data", "name", "C:\\data", "a:b:c", "")))


def test_configs_of_plugins_are_found_by_bare_name(install: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "theirs_1.yaml").write_text("family: mbconv\n")
    install(theirs=Plugin(configs=str(tmp_path)))
    assert "theirs_1" in config_names("models")
    assert find_config("models", "theirs_1") == tmp_path / "models" / "theirs_1.yaml"
    (tmp_path / "models" / "shvit_s1.yaml").write_text("family: mbconv\n")
    with pytest.raises(ConfigError, match="'shvit_s1' is there twice"):
        find_config("models", "shvit_s1")
