"""The table of the results database, and how a report becomes a row."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, Select, String, Table, Text

from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol

METADATA = MetaData()
REPORTS = Table(
    "latency_reports",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("artifact_sha256", String(64), nullable=False),
    Column("device_key", String(64), nullable=False),
    Column("protocol_key", String(64), nullable=False),
    Column("content_key", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("device", String(200), nullable=False),
    Column("runtime", String(200), nullable=False),
    Column("model", String(500), nullable=False),
    Column("target", String(32), nullable=False),
    Column("precision", String(64), nullable=False),
    Column("protocol", String(64), nullable=False),
    Column("noisy", Boolean, nullable=False),
    Column("measured_at", String(40), nullable=False),
    Column("report", Text, nullable=False),
    Index("latency_key", "artifact_sha256", "device_key", "protocol_key"),
)


def key_of(record: DeviceInfo | Protocol | LatencyReport) -> str:
    """SHA-256 of a record's content; a device's free-form details do not count."""
    skip = {"details"} if isinstance(record, DeviceInfo) else {"cached"} if isinstance(record, LatencyReport) else None
    plain = json.dumps(record.model_dump(mode="json", exclude=skip), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def columns_of(report: LatencyReport) -> dict[str, str]:
    """Values of the columns that results are found and listed by."""
    return {
        "kind": report.device.kind,
        "device": report.device.name,
        "runtime": report.device.runtime,
        "model": report.model,
        "target": report.target,
        "precision": report.precision,
        "protocol": report.protocol.name,
        "measured_at": report.measured_at,
    }


def cell(name: str, text: str) -> str:
    """Cuts a text to the length of its column; the report itself is kept whole.

    Args:
        name: a text column of REPORTS.
        text: its value.
    """
    length = REPORTS.c[name].type.length  # type: ignore[attr-defined]
    return text.replace("\x00", "")[:length]


def where(query: Select[Any], equals: Mapping[str, str | bool]) -> Select[Any]:
    """Adds conditions to a query.

    Args:
        query: on REPORTS.
        equals: value by column.
    """
    for name, value in equals.items():
        query = query.where(REPORTS.c[name] == value)
    return query
