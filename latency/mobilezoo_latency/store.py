"""Results database: raw reports by artifact hash × device × protocol; nothing is ever overwritten.

SQLite by default, PostgreSQL by URL (SQLAlchemy). Rows are added and deleted whole, one transaction each, so writers
that run at the same time lose nothing. A row that is no valid result is reported once and left out of everything.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, create_engine, event, func, select
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError
from sqlalchemy.schema import CreateIndex, CreateTable

from mobilezoo.errors import MobilezooError, first_line, printable
from mobilezoo.installed import user_data
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo.reading import parse_json
from mobilezoo_latency.store_table import REPORTS, cell, columns_of, key_of, where

ENVIRONMENT = "MOBILEZOO_LATENCY_DB"
LOCK_WAIT_S = 60
CREATION_LOCK = 0x6D7A6C61
"""Key of the PostgreSQL advisory lock that serializes the creation of the table; arbitrary."""
REMEDIES = {
    "unable to open": f": file and folder must be writable, also to read: copy it, or set {ENVIRONMENT}",
    "readonly": f": file and folder must be writable, also to read: copy it, or set {ENVIRONMENT}",
    "disk I/O": ": the disk may be full or fail: free some space, or set " + ENVIRONMENT,
    "is full": ": free some space, or set " + ENVIRONMENT,
    "locked": ": another program holds it: end that, or wait",
}
"""Remedy by words of SQLite's message."""


def default_url() -> str:
    """`$MOBILEZOO_LATENCY_DB` (a URL or a path), else a file below the user's data folder."""
    return os.environ.get(ENVIRONMENT) or str(user_data() / "latency.db")


class Store:
    """A results database. Raises MobilezooError for a bad address; a damaged file is renamed and reported."""

    def __init__(self, url: str | Path | None = None) -> None:
        text = str(url or default_url())
        self.file: Path | None = None
        if "://" not in text:
            self.file = Path(text).expanduser()
        elif text.startswith("sqlite:///"):
            self.file = Path(text.removeprefix("sqlite:///"))
        if self.file is not None:
            _make_folder(self.file)
        try:
            wait = {"timeout": LOCK_WAIT_S} if self.file is not None else {}
            address = URL.create("sqlite", database=str(self.file)) if self.file is not None else make_url(text)
            self._engine = create_engine(address, connect_args=wait)
        except (ArgumentError, NoSuchModuleError) as error:
            raise MobilezooError(f"results database {text!r}: {error}") from None
        except ModuleNotFoundError as error:
            raise MobilezooError(f"results database {text!r}: install its driver, {error.name!r}") from None
        if self.file is not None:
            event.listen(self._engine, "connect", _sqlite_settings)
        self._named: set[int] = set()
        with self._connect() as connection:
            if self._engine.dialect.name == "postgresql":  # IF NOT EXISTS is no lock there: creators take turns
                connection.execute(select(func.pg_advisory_xact_lock(CREATION_LOCK)))
            connection.execute(CreateTable(REPORTS, if_not_exists=True))
            for index in REPORTS.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))

    def add(self, report: LatencyReport) -> bool:
        """Stores a report. Returns False if an equal one is there already."""
        content = key_of(report)
        row = {
            "artifact_sha256": report.artifact_sha256,
            "device_key": key_of(report.device),
            "protocol_key": key_of(report.protocol),
            "content_key": content,
            "noisy": bool(report.noisy),
            **{name: cell(name, text) for name, text in columns_of(report).items()},
            "report": report.model_dump_json(exclude={"cached"}),
        }
        with suppress(IntegrityError), self._connect() as connection:  # another writer may be adding the same one now
            if connection.execute(select(REPORTS.c.id).where(REPORTS.c.content_key == content)).first():
                return False
            connection.execute(REPORTS.insert().values(row))
            return True
        return False

    def find(
        self, artifact_sha256: str, device: DeviceInfo, protocol: Protocol, noisy: bool = False
    ) -> LatencyReport | None:
        """Finds the newest report of exactly this artifact, device and protocol.

        Args:
            artifact_sha256: hash of the file.
            device: identity of the device, free-form details excluded.
            protocol: the protocol that was followed.
            noisy: also accept a noisy report if there is no quiet one.

        Returns:
            The report, marked as `cached`; None if there is none.
        """
        query = (
            select(REPORTS.c.id, REPORTS.c.report)
            .where(
                REPORTS.c.artifact_sha256 == artifact_sha256,
                REPORTS.c.device_key == key_of(device),
                REPORTS.c.protocol_key == key_of(protocol),
            )
            .order_by(REPORTS.c.noisy, REPORTS.c.measured_at.desc(), REPORTS.c.id.desc())
        )
        query = query if noisy else query.where(REPORTS.c.noisy.is_(False))
        for _, report in self._valid(query):
            return report.model_copy(update={"cached": True})
        return None

    def rows(self, **equals: str | bool) -> list[tuple[int, LatencyReport]]:
        """Returns (number, report) of the stored results, in the order they were added.

        Rows that are no valid result are left out, and reported on stderr once.

        Args:
            **equals: keeps rows whose column (`model`, `kind`, `device`, ...) has this value.
        """
        return list(self._valid(where(select(REPORTS.c.id, REPORTS.c.report), equals).order_by(REPORTS.c.id)))

    def get(self, number: int) -> LatencyReport:
        """One report by its number. Raises MobilezooError."""
        with self._connect() as connection:
            text = connection.execute(select(REPORTS.c.report).where(REPORTS.c.id == number)).scalar()
        if text is None:
            raise MobilezooError(f"no latency result {number}: see `mobilezoo latency list`")
        return _report(text, f"latency result {number}")

    def damaged(self) -> list[int]:
        """Numbers of the rows that are no valid result."""
        query = select(REPORTS.c.id, REPORTS.c.report).order_by(REPORTS.c.id)
        with self._connect() as connection:
            return [number for number, text in connection.execute(query) if _fault(number, text)]

    def delete(self, numbers: Sequence[int] = (), **equals: str | bool) -> int:
        """Deletes rows by number and by column; nothing if neither is given.

        Args:
            numbers: ids of rows.
            **equals: also deletes rows whose columns all have these values.

        Returns:
            The number of deleted rows.

        Raises:
            MobilezooError: a number that is not there; then nothing is deleted.
        """
        with self._connect() as connection:
            chosen = set(numbers)
            if equals:
                chosen |= set(connection.execute(where(select(REPORTS.c.id), equals)).scalars())
            there = set(connection.execute(select(REPORTS.c.id).where(REPORTS.c.id.in_(chosen))).scalars())
            if unknown := sorted(chosen - there):
                raise MobilezooError(
                    f"no latency result {unknown[0]}: nothing was deleted; see `mobilezoo latency list`"
                )
            connection.execute(REPORTS.delete().where(REPORTS.c.id.in_(chosen)))
        return len(chosen)

    def _valid(self, query: Select[Any]) -> Iterator[tuple[int, LatencyReport]]:
        with self._connect() as connection:
            found = connection.execute(query).all()
        for number, text in found:
            fault = _fault(number, text)
            if fault is None:
                yield number, _report(text, "")
            elif number not in self._named:
                self._named.add(number)
                remedy = f"`mobilezoo latency delete {number}` removes it"
                print(f"left out: {printable(fault)[:300]}; {remedy}", file=sys.stderr)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as error:
            reason = first_line(str(error.orig))
            if (
                type(error) is DatabaseError
            ):  # its subclasses name a fault of the request or the server, not of the file
                raise MobilezooError(self._set_aside(reason)) from None
            remedy = next((remedy for words, remedy in REMEDIES.items() if words in reason), "")
            raise MobilezooError(f"results database {self._engine.url!s}: {reason}{remedy}") from None

    def _set_aside(self, reason: str) -> str:
        if self.file is None or not self.file.is_file():
            return f"results database {self._engine.url!s}: {reason}"
        self._engine.dispose()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = self.file.with_name(f"{self.file.name}.damaged-{stamp}")
        self.file.rename(aside)
        return f"results database {str(self.file)!r} is damaged ({reason}): kept aside as {aside.name!r}; run again"


def _report(text: str, source: str) -> LatencyReport:
    """Raises ConfigError."""
    return LatencyReport.parse(parse_json(text, source), source)


def _fault(number: int, text: str) -> str | None:
    """Reason why a row is no valid result; None for a valid one."""
    try:
        _report(text, f"latency result {number}")
    except MobilezooError as error:
        return str(error)
    return None


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobilezooError(f"results database {str(file)!r}: {error.strerror or error}") from None


def _sqlite_settings(connection: Any, _: Any) -> None:
    """Readers do not block the writer; a power cut loses at most the last report."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
