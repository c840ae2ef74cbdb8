"""The boundary for YAML and JSON: hostile text is one line, quickly; what passes is plain, finite and bounded."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError
from mobilezoo.reading import MAX_DEPTH, MAX_YAML_BYTES, parse_json, parse_yaml, plain, read_json, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
YAMLS = [
    ("a: 2020-01-01", ["a is a date", "quotes"]),
    ("a: {b: [1, 2001-12-14t21:59:43.10-05:00]}", ["a.b.1 is a date"]),
    ("a: 2020-13-45", ["month"]),
    ("a: !!set {x}", ["a is a set"]),
    ("a: !!binary aGk=", ["a is binary data"]),
    ("a: !!pairs [b: 1]", ["a.0 is of type tuple"]),
    ("a: !!omap [b: 1]", ["a is of type"]),
    ("? [1, 2]\n: 3", ["key '(1, 2)'"]),
    ("a: {1: x}", ["a: the key '1'", "quotes"]),
    ("null: x", ["key 'None'"]),
    ("a: &a {b: *a}", ["containing itself"]),
    ("&a [*a]", ["containing itself"]),
    (BOMB, ["aliases"]),
    ("a: &x {b: 1}\nc: {<<: *x}", ["merge keys", "line 2"]),
    ("a: " + "9" * 5000, ["5000 digits", "line 1"]),
    ("a: 0x" + "f" * 3000, ["3002 digits"]),
    ("a: 0x" + "f" * 30, ["64 bits"]),
    ("a: 9223372036854775808", ["64 bits"]),
    ("a: 1e309", ["a is inf"]),
    ("a: [.nan]", ["a.0 is nan"]),
    ('a: "\\ud800"', ["surrogate"]),
    ("a: 1\na: 2", ['duplicate key "a"', "line 2"]),
    ("a: !!python/object:os.system {}", ["tag"]),
    ("a: !!int ''", ["not valid YAML"]),
    ("a: !!bool x", ["not valid YAML"]),
    ("a: {b: 1, b: 2}", ['duplicate key "b"', "line 1"]),
    ("%YAML 1.1\n---\na: on", ["read as YAML 1.2", "%YAML line"]),
    ('a: 1\na: "\\ud800"', ['duplicate key "a"', r"\ud800"]),
    ("a: =", ["put text in quotes", "line 1"]),
    ("a:\n\tb: 1", ["line 2"]),
    ("a: b\n---\nc: d", ["another document"]),
    ("a: [1", ["line 1"]),
    ("a: " + "[" * 50_000, ["nested"]),
    ("- " * 50_000, ["nested"]),
    ("x" * (MAX_YAML_BYTES + 1), ["KiB"]),
    ("\x00", ["not valid YAML"]),
]
JSONS = [
    ('{"a": NaN}', ["NaN"]),
    ("[-Infinity]", ["-Infinity"]),
    ('{"a": [1e999]}', ["a.0 is inf"]),
    ("[" * 50_000, ["nested"]),
    ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), ["nested"]),
    ('{"a": 1, "b": 2, "a": 3}', ["'a' is given twice"]),
    ("1" * 5000, ["5000 digits"]),
    ("1" * 30, ["64 bits"]),
    ('"\\ud800"', ["surrogate"]),
    ('{"\\udfff": 1}', ["surrogate"]),
    ("", ["not valid JSON"]),
    ("{", ["not valid JSON"]),
]


@pytest.mark.parametrize(("text", "expected"), YAMLS, ids=[text[:16] for text, _ in YAMLS])
def test_hostile_yaml_is_one_line_that_names_the_place(text: str, expected: list[str]) -> None:
    _refused(parse_yaml, text, expected)


@pytest.mark.parametrize(("text", "expected"), JSONS, ids=[text[:16] for text, _ in JSONS])
def test_hostile_json_is_one_line_that_names_the_place(text: str, expected: list[str]) -> None:
    _refused(parse_json, text, expected)


def _refused(parse: Any, text: str, expected: list[str]) -> None:
    before = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    told = str(caught.value)
    assert told.startswith("x.yaml: ")
    assert told.isprintable()
    assert len(told) < 400
    assert all(part in told for part in expected), told
    assert time.process_time() - before < 20


def test_what_yaml_1_2_means_is_kept() -> None:
    text = "a: 1e-3\nb: 0x10\nc: [no, true, ~, '2020-01-01', 12e03]\nd: &d {x: 1}\ne: *d\nf: 9223372036854775807\n"
    assert parse_yaml(text, "x") == {
        "a": 0.001,
        "b": 16,
        "c": ["no", True, None, "2020-01-01", 12000.0],
        "d": {"x": 1},
        "e": {"x": 1},
        "f": 2**63 - 1,
    }


def test_what_yaml_1_1_reads_otherwise_is_what_it_looks_like() -> None:
    text = "a: [on, off, yes, no, y, 12:30:45, 1:30, 1_000, 0o17, 017, 1e3, +1, .5, 1.2.3, 0x1F, 0b11, NULL, 2020-1-1]"
    assert parse_yaml(text, "x")["a"] == [
        *("on", "off", "yes", "no", "y", "12:30:45", "1:30", 1000, 15, 17, 1000.0, 1, 0.5, "1.2.3", 31, 3, None),
        "2020-1-1",
    ]


def test_a_word_for_a_truth_is_shown_as_the_text_it_is() -> None:
    class Switch(Record):
        on: bool = False

    with pytest.raises(ConfigError, match=r"x: on = 'no': expected true or false"):
        Switch.parse(parse_yaml("on: no", "x"), "x")


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_marks_and_line_ends_of_other_editors_change_nothing(tmp_path: Path, read: Any) -> None:
    for text in (b'\xef\xbb\xbf{"a": 1}', b'{"a":\r\n1}\r\n', b'{"a": 1}\r'):
        (tmp_path / "x").write_bytes(text)
        assert read(tmp_path / "x") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1".encode("utf-16"), "UTF-16.*save it as UTF-8"),
        (b"a: \xe9", "byte 0xe9 at 3.*save it as UTF-8"),
        (b"", "got nothing"),
        (b"# only\n# comments\n", "got nothing"),
        (b"- a\n", "got list"),
    ],
)
def test_files_that_hold_no_mapping_say_what_they_hold(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"x\.yaml: .*{said}"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: 1\n" * MAX_YAML_BYTES])
@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_files_that_are_no_text_or_too_large_are_refused_by_name(tmp_path: Path, read: Any, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read(path)


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, read: Any) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "a\0b", Path("/dev/zero")):
        with pytest.raises(ConfigError):
            read(path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_plain_data_passes_unchanged(value: Any) -> None:
    assert parse_json(json.dumps(value), "x") == value
    assert plain(value, "x") is value


@settings(max_examples=300)
@given(st.text(st.sampled_from("[]{}:,-&*!?|>'\"%@`#a1. \n\t<~=\x07é\u2028"), max_size=40))
def test_no_yaml_text_raises_anything_else(text: str) -> None:
    with suppress(ConfigError):
        json.dumps(parse_yaml(text, "x"), allow_nan=False)


def test_control_characters_of_a_key_are_shown_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(r'"a\e[31m\n": .nan', "x.yaml")
    assert str(caught.value) == r"x.yaml: a\x1b[31m\n is nan, not a finite number"


def test_records_hold_finite_numbers_only() -> None:
    class Length(Record):
        metres: float = 0.0

    for value in (float("nan"), float("inf"), "1", {1: 2}, {1, 2}):
        with pytest.raises(ConfigError, match=r"x\.json"):
            Length.parse({"metres": value}, "x.json")
