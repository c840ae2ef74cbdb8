"""Listing, exporting and importing kept results."""

import contextlib
import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import DeviceInfo, Estimate, LatencyReport, Protocol
from mobilezoo_latency import Store
from mobilezoo_latency.results import (
    export_results,
    first_and_last_minute,
    import_results,
    list_results,
    show_result,
)


def made(model: str = "a", kind: str = "host", **changes) -> LatencyReport:
    fields = {
        "artifact_sha256": "a" * 64,
        "artifact": f"{model}.tflite",
        "target": "litert",
        "precision": "fp32",
        "model": model,
        "device": DeviceInfo(name=kind, kind=kind, runtime="LiteRT"),
        "protocol": Protocol(),
        "samples_ms": (1.0, 2.0, 3.0),
        "load_ms": 1.0,
        "first_run_ms": 1.0,
        "sentinel_before_ms": 1.0,
        "sentinel_after_ms": 1.0,
        "measured_at": "2024-01-01T00:00:00+00:00",
    }
    return LatencyReport(**{**fields, **changes})


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "latency.db")
    store.add(made("a"))
    store.add(made("b", noisy=("drift of 9%",)))
    store.add(made("c", kind="emulated", samples_ms=()))
    estimate = Estimate(latency_ms=5.0, low_ms=4.0, high_ms=6.0, error_percent=8.0, basis="4 networks")
    store.add(made("d", kind="emulated", samples_ms=(), estimate=estimate))
    return store


def test_a_listing_keeps_kinds_noise_and_estimates_apart(store):
    rows = {row["model"]: row for row in list_results(store)}
    assert rows["a"]["median_ms"] == 2.0
    assert rows["b"]["noisy"] == "drift of 9%"
    assert (rows["c"]["kind"], rows["c"]["median_ms"], rows["c"]["measured"]) == ("emulated", None, False)
    assert (rows["d"]["median_ms"], rows["d"]["error_percent"], rows["d"]["measured"]) == (5.0, 8.0, False)
    assert [row["model"] for row in list_results(store, kind="host")] == ["a", "b"]


def test_filtering_by_an_unknown_column_is_one_line(store, tmp_path):
    with pytest.raises(MobilezooError, match="no column 'color'"):
        list_results(store, color="red")
    for name in ("out.jsonl", "out.csv"):
        with pytest.raises(MobilezooError, match="no column 'color'"):
            export_results(store, tmp_path / name, color="red")
        assert not (tmp_path / name).exists()


def test_showing_gives_raw_samples(store):
    assert show_result(store, 1)["samples_ms"] == [1.0, 2.0, 3.0]


def test_whole_results_travel_between_databases(store, tmp_path):
    assert export_results(store, tmp_path / "all.jsonl") == 4
    other = Store(tmp_path / "other.db")
    assert import_results(other, tmp_path / "all.jsonl") == (4, 0)
    assert import_results(other, tmp_path / "all.jsonl") == (0, 4)
    assert [r for _, r in other.rows()] == [r for _, r in store.rows()]


def test_csv_holds_one_summary_per_line(store, tmp_path):
    assert export_results(store, tmp_path / "some.csv", kind="host") == 2
    rows = list(csv.DictReader(io.StringIO((tmp_path / "some.csv").read_text())))
    assert [row["model"] for row in rows] == ["a", "b"]
    assert float(rows[0]["median_ms"]) == 2.0


def test_a_damaged_line_imports_nothing(store, tmp_path):
    export_results(store, tmp_path / "all.jsonl")
    path = tmp_path / "broken.jsonl"
    for tail, word in (("{", "not valid JSON"), ("[]", "not a latency result"), ('{"model": 1}', "missing key")):
        path.write_text((tmp_path / "all.jsonl").read_text() + tail + "\n")
        other = Store(tmp_path / "other.db")
        with pytest.raises(MobilezooError, match=f"line 5.*{word}"):
            import_results(other, path)
        assert other.rows() == []


def test_an_export_format_that_does_not_exist_is_one_line(store, tmp_path):
    with pytest.raises(MobilezooError, match=r"\.jsonl"):
        export_results(store, tmp_path / "all.xlsx")


def test_a_sustained_result_tells_its_first_and_last_minute():
    slow = made(samples_ms=(10.0,) * 6000 + (20.0,) * 6000)
    assert first_and_last_minute(slow) == {"first_minute_ms": 10.0, "last_minute_ms": 20.0, "slowdown": 2.0}
    assert first_and_last_minute(made()) is None


def edited(store: Store, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """An export whose second line is changed as plain data; NaN and Infinity are written as Python does."""
    export_results(store, path)
    lines = path.read_text(encoding="utf-8").split("\n")
    data = json.loads(lines[1])
    change(data)
    lines[1] = json.dumps(data, ensure_ascii=False)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0, True, "1", None, 10**400, [1.0]])
@pytest.mark.parametrize("key", ["samples_ms", "load_ms", "sentinel_before_ms"])
def test_a_time_that_is_none_is_never_imported(store, tmp_path, key, value):
    if key != "samples_ms" and value in (0.0, None):
        pytest.skip("a cost may be 0 or unknown")

    def change(data: dict[str, Any]) -> None:
        data[key] = [1.0, value] if key == "samples_ms" else value

    other = Store(tmp_path / "other.db")
    with pytest.raises(MobilezooError, match=r"line 2.*nothing was imported"):
        import_results(other, edited(store, tmp_path / "all.jsonl", change))
    assert other.rows() == []


def test_lines_end_at_line_feeds_only(store, tmp_path):
    odd = "Phone\u2028X\x85\x0b\u2029"

    def change(data: dict[str, Any]) -> None:
        data["device"]["name"] = odd

    other = Store(tmp_path / "other.db")
    assert import_results(other, edited(store, tmp_path / "all.jsonl", change)) == (4, 0)
    export_results(other, tmp_path / "again.jsonl")
    assert import_results(other, tmp_path / "again.jsonl") == (0, 4)
    assert [report.device.name for _, report in other.rows()][1] == odd


def test_another_schema_or_no_file_is_one_line_that_says_what_to_do(store, tmp_path):
    path = edited(store, tmp_path / "all.jsonl", lambda data: data.update(schema_version=2))
    with pytest.raises(MobilezooError, match="of schema 2, and this version reads 1: use the version"):
        import_results(Store(tmp_path / "other.db"), path)
    with pytest.raises(MobilezooError, match=f"{tmp_path}: Is a directory"):
        import_results(store, tmp_path)


def test_a_csv_holds_no_formula_and_nothing_that_steers_a_terminal(tmp_path):
    store = Store(tmp_path / "latency.db")
    store.add(made(model="=cmd|x", device=DeviceInfo(name="a\x1b[2J\nb", kind="host", runtime="@x")))
    export_results(store, tmp_path / "all.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text(encoding="utf-8")))
    assert (row["model"], row["device"], row["runtime"]) == ("'=cmd|x", "a\\x1b[2J\\nb", "'@x")


def test_a_line_named_twice_is_counted_once(store, tmp_path):
    export_results(store, tmp_path / "all.jsonl")
    twice = tmp_path / "twice.jsonl"
    twice.write_bytes((tmp_path / "all.jsonl").read_bytes() * 2 + b"\r\n\n")
    assert import_results(Store(tmp_path / "other.db"), twice) == (4, 4)


def test_odd_lines_are_one_printable_line(store, tmp_path):
    export_results(store, tmp_path / "all.jsonl")
    good = (tmp_path / "all.jsonl").read_bytes()
    rng, path = random.Random(0), tmp_path / "odd.jsonl"
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            place, how = rng.randrange(len(data)), rng.randrange(3)
            piece = rng.choice(
                [b"NaN", b"-1", b"\xff", b"\x00", b"1e999", b"[" * 2000, b"\x1b[2J", b"9" * 5000, b"\n", b'"']
            )
            data[place : place + (how and len(piece))] = piece
        path.write_bytes(bytes(data))
        other = Store(tmp_path / "other.db")
        with contextlib.suppress(MobilezooError):
            import_results(other, path)
        for number, report in other.rows():
            assert all(math.isfinite(ms) and ms > 0 for ms in report.samples_ms), number


def test_an_estimate_has_no_percentiles(store):
    (row,) = [row for row in list_results(store) if row["model"] == "d"]
    assert (row["median_ms"], row["ci_low_ms"], row["ci_high_ms"]) == (5.0, 4.0, 6.0)
    assert (row["p90_ms"], row["p99_ms"]) == (None, None)


def test_percentiles_of_estimates_are_nowhere(store, tmp_path, capsys, monkeypatch):
    """Neither in JSON nor in CSV, tables, pages or the figures of `profile`; none is known of one number."""
    from mobilezoo.cli import latency
    from mobilezoo.cli.profile import print_reports
    from mobilezoo.latency_report import Counts
    from mobilezoo.report import ReportContents, build_report
    from mobilezoo.workflows.profile import report_dict

    (report,) = [r for _, r in store.rows() if r.model == "d"]
    assert set(report_dict(report)["summary"]) == {"median_ms", "ci_low_ms", "ci_high_ms"}
    export_results(store, tmp_path / "all.csv")
    (row,) = [r for r in csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())) if r["model"] == "d"]
    assert (row["median_ms"], row["p90_ms"], row["p99_ms"]) == ("5.0", "", "")
    monkeypatch.setattr("mobilezoo_latency.Store", lambda: store)
    latency.list_(where=["model=d"])
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[5:9] == ["screen", "5.000", "estimated,", "error"]
    counted = report.model_copy(update={"counts": Counts(instructions=9, cycles=4.0)})
    print_reports([counted])
    page = build_report(tmp_path / "r.html", ReportContents(title="x", latencies=[counted])).read_text()
    for text in (capsys.readouterr().out, page[page.index("<body>") :]):
        assert "p90" not in text
        assert "p99" not in text
