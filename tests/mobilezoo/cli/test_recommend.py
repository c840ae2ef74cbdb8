"""`list --device` and `recommend` as a user calls them, on the table that comes with the package."""

import csv
import io
import json

import pytest

from mobilezoo.cli.main import main
from mobilezoo.models.latency_table import read_latencies


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a user's mistake."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_list_has_latency_beside_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("list", "--device", "cortex_a76", "--precision", "int8", "--sort", "latency")
    rows = json.loads(printed(capsys, *words, "--peers", "--json"))
    of_table = {r.model: r for r in read_latencies().rows if (r.device, r.precision) == ("cortex_a76", "int8")}
    counted = [row for row in rows if row["latency_ms"] is not None]
    assert [row["latency_ms"] for row in counted] == sorted(row["latency_ms"] for row in counted)
    assert rows[: len(counted)] == counted
    assert {row["name"]: row["latency_ms"] for row in counted} == {
        name: row.latency_ms for name, row in of_table.items() if row.latency_ms
    }
    assert {row["latency_kind"] for row in rows} == {"emulated"}
    assert all(row["latency_reason"] for row in rows if row["latency_ms"] is None)
    as_csv = list(csv.DictReader(io.StringIO(printed(capsys, *words, "--csv"))))
    assert as_csv[0]["latency_ms"] == str(next(r["latency_ms"] for r in counted if not r["name"].startswith("timm:")))
    text = printed(capsys, *words)
    assert "emulated, not timed" in text
    assert "are not counted on cortex_a76 in int8 yet" in text or len(counted) == len(rows)


def test_a_pattern_may_match_timms_networks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "list", "*tinynet_e*", "--peers", "--json"))
    assert [row["name"] for row in rows] == ["timm:tinynet_e.in1k"]


def test_a_recommendation_is_printed_with_commands_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "recommend", "--precision", "any", "--json"))
    text = printed(capsys, "recommend", "--precision", "any")
    assert found["kind"] == "emulated"
    assert all(pick["command"] in text for pick in found["front"])
    assert all(group["reason"] in text for group in found["left_out"])
    assert "not timed" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("recommend", "--max-ms", "0.01"), "--max-ms 0.01: the fastest of"),
        (("recommend", "--license", "GPL"), "no network has weights under a license 'GPL'"),
        (("recommend", "--device", "cortex_a67"), "did you mean cortex_a76"),
        (("recommend", "--precision", "int7"), "did you mean int8"),
        (("recommend", "--task", "segment"), "unknown task 'segment'"),
        (("list", "--device", "pixel"), "recommend --device pixel"),
        (("list", "--device", "cortex_a76", "--precision", "int7"), "did you mean int8"),
        (("list", "--sort", "latency"), "--sort latency needs a core"),
        (("list", "--sort", "speed"), "unknown order 'speed'"),
        (("list", "--precision", "int8"), "--precision int8 needs a core"),
        (("list", "*no_such_network*", "--peers"), "unknown model"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str) -> None:
    assert says in refused(capsys, *words)
