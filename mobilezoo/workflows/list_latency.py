"""`mobilezoo list --device`: the counted latencies of a core beside what is published."""

from collections.abc import Callable, Sequence
from typing import Any

from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.models.entries import entries
from mobilezoo.models.latency_table import LatencyTable, read_latencies

NOT_COUNTED = "not counted yet"
Key = Callable[[dict[str, Any]], Any]
SORTS: dict[str, tuple[Key, bool]] = {
    # name → (value, whether the largest comes first)
    "latency": (lambda row: row.get("latency_ms"), False),
    "top1": (lambda row: max((s for s in (row["top1"], row["top1_distilled"]) if s is not None), default=None), True),
    "macs": (lambda row: row["macs"], False),
    "params": (lambda row: row["params"], False),
    "size": (lambda row: row.get("size_bytes"), False),
    "name": (lambda row: row["name"], False),
}
OF_LATENCIES = ("latency", "size")
"""Orders that need a device."""


def with_latency(rows: Sequence[dict[str, Any]], device: str, precision: str) -> list[dict[str, Any]]:
    """Rows of `model_rows` with the latency of each network on a core of the table.

    Args:
        rows: plain records of networks.
        device: a core of the table.
        precision: precision of the files.

    Returns:
        Rows with latency_ms, low_ms, high_ms, latency_error, latency_kind, latency_note, size_bytes, partitions, and
        `latency_reason` where there is no number.

    Raises:
        UnknownNameError: no such core or precision in the table.
    """
    table = read_latencies()
    check_counted(table, device, precision)
    facts, error = table.cores[device], table.error_of(device, precision)
    counted = {row.model: row for row in table.rows if (row.device, row.precision) == (device, precision)}
    found = []
    for row in rows:
        one = counted.get(row["name"])
        ms = one.latency_ms if one else None
        found.append(
            {
                **row,
                "latency_ms": ms,
                "low_ms": None if ms is None else round(ms * facts.low_ratio, 4),
                "high_ms": None if ms is None else round(ms * facts.high_ratio, 4),
                "latency_error": None if ms is None else error,
                "latency_kind": "emulated",
                "latency_reason": NOT_COUNTED if one is None else one.reason,
                "latency_note": one.note if one else "",
                "size_bytes": one.size_bytes if one else None,
                "partitions": one.partitions if one else None,
            }
        )
    return found


def check_counted(table: LatencyTable, device: str, precision: str) -> None:
    """Refuses a core or precision that is not in the table.

    Args:
        table: the latency table.
        device: a core.
        precision: precision of the files.

    Raises:
        UnknownNameError: with those that are.
    """
    if device not in table.cores:
        elsewhere = f"on another device measure: mobilezoo recommend --device {device}, or profile"
        raise UnknownNameError("core of the latency table", device, table.cores, elsewhere)
    if precision not in table.precisions:
        raise UnknownNameError("precision", precision, table.precisions)


def peer_rows(pattern: str = "*") -> list[dict[str, Any]]:
    """timm's networks of the latency table as rows of `model_rows`, those that match a shell pattern."""
    import fnmatch

    return [
        {
            **peer.model_dump(include={"name", "family", "resolution", "params", "macs", "top1", "source", "license"}),
            "top1_distilled": None,
            "epochs": None,
        }
        for peer in entries()
        if peer.is_peer and fnmatch.fnmatch(peer.name, pattern)
    ]


def in_order(rows: Sequence[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Sorts rows; those without the value come last.

    Args:
        rows: plain records of networks.
        by: a key of SORTS.

    Raises:
        UnknownNameError: no such order.
        MobilezooError: the order needs a device.
    """
    if by not in SORTS:
        raise UnknownNameError("order", by, SORTS)
    if by in OF_LATENCIES and rows and "latency_ms" not in rows[0]:
        raise MobilezooError(f"--sort {by} needs a core of the latency table: --device cortex_a76")
    value, largest_first = SORTS[by]
    known = sorted((row for row in rows if value(row) is not None), key=value, reverse=largest_first)
    return known + [row for row in rows if value(row) is None]
