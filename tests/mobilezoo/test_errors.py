"""Texts of errors are one line, whatever the library behind them wrote."""

from pathlib import Path

from mobilezoo.errors import first_line

ROOT = Path(__file__).resolve().parents[2]


def test_what_a_file_put_into_an_error_is_written_as_an_escape():
    assert first_line(ValueError("\n  No op Red\x16ceMean\x1b[31m\nmore")) == r"No op Red\x16ceMean\x1b[31m"


def test_an_error_without_text_is_named_by_its_type() -> None:
    assert first_line(AssertionError()) == first_line(AssertionError("\n \n")) == "AssertionError"
    assert first_line("  \n") == "no reason given"


def test_long_lines_are_cut() -> None:
    assert first_line(ValueError("x" * 999)) == "x" * 300
    assert first_line("abc\ndef", limit=2) == "ab"


def test_nobody_takes_the_first_line_of_an_error_by_hand() -> None:
    files = [p for top in ("mobilezoo", "export", "latency", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    by_hand = [p.name for p in files if "str(error)" in (text := p.read_text("utf-8")) and "splitlines()[0]" in text]
    assert by_hand == []
