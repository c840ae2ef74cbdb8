"""YAML and overrides become typed records; every fault is one line that names file, key, value and remedy."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobilezoo.config import (
    apply_overrides,
    config_names,
    explained,
    find_config,
    load_record,
    read_yaml,
    write_yaml,
)
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.models import load_model_config
from mobilezoo.models.base import ModelConfig
from mobilezoo.search.config import SearchConfig
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.schemas import KINDS as SCHEMAS

GOOD = "model: shvit_s1\ndata: {source: digits}\ntrain: {epochs: 7, optimizer: {lr: 1e-3}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def test_yaml_1_2_numbers_and_nested_records(recipe: Path) -> None:
    config = load_record(TrainConfig, recipe)
    assert config.train.optimizer.lr == 0.001
    assert config.train.epochs == 7


def test_dotted_overrides_reach_nested_keys(recipe: Path) -> None:
    config = load_record(TrainConfig, recipe, ["train.epochs=9", "data.augment.scale=[0.5, 1.0]", "name=other"])
    assert (config.train.epochs, config.data.augment.scale, config.name) == (9, (0.5, 1.0), "other")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epoch=5", ["train.epoch", "did you mean train.epochs"]),
        ("train.epochs=many", ["train.epochs", "'many'", "valid integer"]),
        ("train.epochs=0", ["train.epochs", "greater than 0"]),
        ("train.optimizer.clip_mode=soft", ["clip_mode", "'soft'", "'agc'"]),
        ("train.epochs", ["KEY=VALUE"]),
        ("epochs=5", ["unknown key 'epochs'", "did you mean train.epochs?"]),
        ("train.lr=5", ["did you mean train.optimizer.lr?"]),
        ("epoch=5", ["did you mean train.epochs"]),
        ("data.augment.sizes=[160", ["override 'data.augment.sizes=[160'", "column"]),
        ("train.seed=2020-01-01", ["override 'train.seed=2020-01-01'", "date"]),
        ("train.optimizer.lr=.inf", ["override", "inf"]),
        ("name=" + "x" * 5000 + ": y", ["override"]),
        ("model.name=x", ["is a value, not a group"]),
        ("train.epochs=3", ["warmup_epochs"]),
    ],
)
def test_a_wrong_key_or_value_is_one_line(recipe: Path, override: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_record(TrainConfig, recipe, [override])
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in expected), text


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\x00", "!!python/object:os.system {}"])
def test_unusable_yaml_is_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_yaml(path)


def test_a_key_that_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('weights: {"a\\u2028b": {}}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\\u2028b") as told:
        load_record(ModelConfig, path)
    assert str(told.value).isprintable()


def test_near_names_are_offered() -> None:
    with pytest.raises(UnknownNameError, match="did you mean mobilenetv2_ca_100"):
        load_model_config("mobilenet")
    with pytest.raises(UnknownNameError, match="shvit_s1"):
        load_model_config("shvit_s")
    with pytest.raises(UnknownNameError, match="digits"):
        find_config("train", "digit")


INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x85"), max_size=20
)  # YAML reads a bare NEL as a line break


@example({"a": "?0"})
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.one_of(INTEGERS, st.booleans(), TEXT, st.lists(INTEGERS, max_size=3), st.none()),
        min_size=1,
    )
)
def test_written_yaml_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]) -> None:
    path = write_yaml(tmp_path_factory.mktemp("yaml") / "x.yaml", data, ["header"])
    assert read_yaml(path) == data


def test_every_key_is_explained_with_its_value(recipe: Path) -> None:
    rows = {key: (value, meaning) for key, value, meaning in explained(load_record(TrainConfig, recipe))}
    assert rows["train.epochs"][0] == "7"
    assert rows["train.loss"] == ("ce", "ce or bce")
    assert rows["train.ema"] == ("null", "Exponential moving average of the weights (timm's ModelEmaV3).")
    assert rows["train.ema.decay"][0] == ""  # the group is off
    assert apply_overrides({}, [f"{key}={value}" for key, (value, _) in rows.items() if value not in ("", "null")])
    for cls, name, kind in ((TrainConfig, "shvit", "train"), (SearchConfig, "mobile", "search")):
        data = apply_overrides(read_yaml(find_config(kind, name)), [])
        assert not [key for key, _, meaning in explained(cls.parse(data)) if not meaning], "a key without a meaning"


def test_overrides_leave_the_original_untouched() -> None:
    data = {"train": {"epochs": 1}}
    apply_overrides(data, ["train.epochs=2"])
    assert data == {"train": {"epochs": 1}}


@pytest.mark.parametrize(("kind", "folder"), SCHEMAS.items())
def test_every_shipped_config_names_its_schema_and_then_says_what_it_is(kind: str, folder: str) -> None:
    for name in config_names(folder):
        first, second, *_ = find_config(folder, name).read_text(encoding="utf-8").splitlines()
        assert first == f"# yaml-language-server: $schema=../schemas/{kind}.json", name
        assert second.startswith("# "), name


@pytest.mark.parametrize("name", config_names("train"))
def test_every_recipe_is_valid(name: str) -> None:
    config = load_record(TrainConfig, find_config("train", name))
    assert min(load_model_config(config.model).resolution) > 0
