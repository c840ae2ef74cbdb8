"""Stored results as tables and files, for `mobilezoo latency list | show | export | import`.

Export and import use JSON Lines, one whole report per line with its raw samples, so that results travel between
machines without loss. CSV holds the summaries only and cannot be imported.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mobilezoo.errors import ConfigError, MobilezooError, existing_path, printable
from mobilezoo.files import write_text
from mobilezoo.latency_report import LatencyReport
from mobilezoo.reading import MAX_JSON_BYTES, parse_json
from mobilezoo_latency import stats
from mobilezoo_latency.measuring import summarize
from mobilezoo_latency.store import Store

MINUTE_MS = 60_000.0
SCHEMA = 1
"""`schema_version` of the lines that this version reads."""
FORMULA = ("=", "+", "-", "@")
"""First characters of a cell that spreadsheets evaluate."""
COLUMNS = ("kind", "device", "runtime", "model", "target", "precision", "protocol")
"""Columns that a listing can be filtered by."""


def list_results(store: Store, **equals: str) -> list[dict[str, Any]]:
    """Lists the results of a store, one row each, in the order they were added.

    Args:
        store: the results database.
        **equals: keeps rows whose column has this value; keys are COLUMNS.

    Raises:
        MobilezooError: an unknown column, or a store that cannot be read.
    """
    _require_columns(equals)
    return [row(number, report) for number, report in store.rows(**equals)]


def _require_columns(names: Iterable[str]) -> None:
    """Raise MobilezooError for a name that is not in COLUMNS."""
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise MobilezooError(f"no column {unknown[0]!r} to filter by: choose from {', '.join(COLUMNS)}")


def row(number: int, report: LatencyReport) -> dict[str, Any]:
    """Returns a result as one flat row; quantities that were not measured are None.

    Args:
        number: its id in the store.
        report: the result.
    """
    timed = bool(report.samples_ms) or report.estimate is not None
    summary = summarize(report) if timed else {}
    return {
        "id": number,
        "kind": report.device.kind,
        "device": report.device.name,
        "runtime": report.device.runtime,
        "model": report.model,
        "target": report.target,
        "precision": report.precision,
        "protocol": report.protocol.name,
        "threads": report.protocol.threads,
        **{key: summary.get(key) for key in ("median_ms", "p90_ms", "p99_ms", "ci_low_ms", "ci_high_ms")},
        "measured": bool(report.samples_ms),
        "error_percent": report.estimate.error_percent if report.estimate else None,
        "samples": len(report.samples_ms),
        "load_ms": report.load_ms,
        "first_run_ms": report.first_run_ms,
        "noisy": "; ".join(report.noisy),
        "measured_at": report.measured_at,
        "artifact_sha256": report.artifact_sha256,
    }


def show_result(store: Store, number: int) -> dict[str, Any]:
    """Returns one result in full, with its summary and, for long ones, its first and last minute.

    Args:
        store: the results database.
        number: the result's id.

    Raises:
        MobilezooError: no result of this id, or a damaged one.
    """
    report = store.get(number)
    shown = {**row(number, report), **report.model_dump(mode="json")}
    minutes = first_and_last_minute(report)
    return {**shown, "minutes": minutes} if minutes else shown


def first_and_last_minute(report: LatencyReport) -> dict[str, float] | None:
    """Median of the first and of the last minute of a sustained measurement, and their ratio; None below 2 minutes."""
    samples = report.samples_ms
    runs = report.processes[0].runs_per_sample if report.processes else 1
    if sum(samples) * runs < 2 * MINUTE_MS:
        return None
    first, last = _minute(samples, runs), _minute(samples[::-1], runs)
    return {"first_minute_ms": first, "last_minute_ms": last, "slowdown": last / first}


def _minute(samples: tuple[float, ...], runs: int) -> float:
    """Median of the leading samples that fill a minute."""
    total = 0.0
    for count, sample in enumerate(samples, 1):
        total += sample * runs
        if total >= MINUTE_MS:
            return stats.median(samples[:count])
    return stats.median(samples)


def export_results(store: Store, path: str | Path, **equals: str) -> int:
    """Writes results to a file.

    Args:
        store: the results database.
        path: ending in .jsonl (whole results with raw samples) or .csv (summaries).
        **equals: keeps results whose column has this value; keys are COLUMNS.

    Returns:
        The number of results written.

    Raises:
        MobilezooError: another file ending, or an unknown column.
    """
    target = Path(path).expanduser()
    _require_columns(equals)
    if target.suffix == ".jsonl":
        reports = [report for _, report in store.rows(**equals)]
        write_text(target, "".join(report.model_dump_json(exclude={"cached"}) + "\n" for report in reports))
        return len(reports)
    if target.suffix == ".csv":
        rows = list_results(store, **equals)
        write_text(target, to_csv(rows))
        return len(rows)
    raise MobilezooError(f"cannot export to {target.name!r}: use .jsonl (whole results) or .csv (summaries)")


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text with a header; empty for no rows."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Returns a CSV cell: one line, and text that a spreadsheet does not evaluate."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(FORMULA) else value)


def import_results(store: Store, path: str | Path) -> tuple[int, int]:
    """Adds the results of a .jsonl export; nothing is added if a line is damaged.

    Lines end at line feeds only: JSON may hold every other character.

    Args:
        store: the results database.
        path: a file written by `export_results`.

    Returns:
        (results added, results that were there already).

    Raises:
        MobilezooError: the file cannot be read, or a line is no valid result.
    """
    source = existing_path(path, "results file")
    try:
        reports = list(_lines(source))
    except (OSError, ConfigError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise MobilezooError(f"{f'{path}: {reason}' if reason else error}; nothing was imported") from None
    added = sum(store.add(report) for report in reports)
    return added, len(reports) - added


def _lines(source: Path) -> Iterator[LatencyReport]:
    """The reports of a file, a line each; empty lines are none. Raises ConfigError, OSError."""
    with source.open("rb") as file:
        for number in itertools.count(1):
            line, place = file.readline(MAX_JSON_BYTES + 1), f"{source.name}, line {number}"
            if not line:
                return
            if len(line) > MAX_JSON_BYTES:
                raise ConfigError(f"{place}: longer than {MAX_JSON_BYTES >> 20} MiB, which no result is")
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{place}: not UTF-8 ({error.reason})") from None
            data = parse_json(text, place)
            if not isinstance(data, dict):
                raise ConfigError(f"{place}: not a latency result")
            if data.get("schema_version", SCHEMA) != SCHEMA:
                other = printable(str(data["schema_version"])[:40])
                remedy = "use the version of mobilezoo that wrote it"
                raise ConfigError(f"{place}: of schema {other}, and this version reads {SCHEMA}: {remedy}")
            yield LatencyReport.parse(data, place)
