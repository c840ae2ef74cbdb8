"""JSON schemas of the YAMLs: what is shipped is what the command prints, and it accepts what the records accept."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest

from mobilezoo.cli.main import main
from mobilezoo.config import KINDS as FOLDERS
from mobilezoo.config import config_names, config_root, find_config, read_yaml
from mobilezoo.errors import UnknownNameError
from mobilezoo.workflows.schemas import KINDS, schema


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(kind))


def accepts(kind: str, data: object) -> bool:
    return bool(validator(kind).is_valid(data))


def keys(node: Any) -> Iterator[tuple[str, Any]]:
    """(name, schema) of every key at any depth."""
    if isinstance(node, dict):
        yield from node.get("properties", {}).items()
    for inside in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from keys(inside)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_file_is_what_the_command_prints(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["schema", kind])
    assert not done.value.code
    shipped = (config_root() / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    assert shipped == capsys.readouterr().out, "run `make schemas`"
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped))


def test_every_folder_of_configs_has_a_schema() -> None:
    assert set(KINDS.values()) == set(FOLDERS)


@pytest.mark.parametrize(("kind", "folder"), KINDS.items())
def test_every_shipped_yaml_fits_its_schema(kind: str, folder: str) -> None:
    for name in config_names(folder):
        path = find_config(folder, name)
        faults = [error.message for error in validator(kind).iter_errors(read_yaml(path))]
        assert not faults, (path, faults[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_says_what_it_is_for(kind: str) -> None:
    found = list(keys(schema(kind)))
    assert len(found) > 5
    assert not [name for name, field in found if not field.get("description")]


def test_a_misspelt_key_or_a_wrong_type_does_not_fit() -> None:
    train = read_yaml(find_config("train", "digits"))
    assert not accepts("train", train | {"modle": "shvit_s1"})
    assert not accepts("train", train | {"train": {"epochs": "five"}})
    model = read_yaml(find_config("models", "shvit_s1"))
    assert not accepts("model", model | {"width": [1, 2, 3]})
    assert not accepts("model", model | {"family": "shivt"})
    assert not accepts("device", {"type": "host", "serial": "R58M"})


@pytest.mark.parametrize("size", [224, "192x256", [192, 256], [224], "224"])
def test_sizes_are_accepted_in_every_form(size: object) -> None:
    assert accepts("model", read_yaml(find_config("models", "shvit_s1")) | {"resolution": size})


@pytest.mark.parametrize("size", [0, "192x", [], [1, 2, 3], True, 224.5])
def test_what_is_no_size_is_not(size: object) -> None:
    assert not accepts("model", read_yaml(find_config("models", "shvit_s1")) | {"resolution": size})


def test_lists_may_be_words_with_commas() -> None:
    assert accepts("export", {"targets": "litert,onnx"})
    assert accepts("profile", {"targets": "litert"})
    assert not accepts("export", {"targets": 3})


def test_a_family_of_one_s_own_is_accepted_by_its_place() -> None:
    assert accepts("model", {"family": "my_package.nets:Family", "resolution": 224, "anything": 1})


def test_an_unknown_kind_is_told_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown schema 'trian': did you mean train"):
        schema("trian")
