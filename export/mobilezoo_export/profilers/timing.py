"""Timing that the operator profilers share."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from mobilezoo_export.records import OperatorTime

WARM_UP = 5
RUNS = 30
MIN_S = 0.02
"""Per operator, where operators are timed one by one."""
Row = tuple[str, str, str, float]
"""Name, type, shape of the output, ms."""


def timed(run: Callable[[], object]) -> float:
    """Median ms of at least RUNS warm runs, over at least MIN_S."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < RUNS or time.perf_counter() - begin < MIN_S:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def shares(rows: Sequence[Row]) -> list[OperatorTime]:
    """Add to each row its share of the sum, 0..1."""
    total = sum(row[3] for row in rows) or 1.0
    return [OperatorTime(name, kind, shape, ms, ms / total) for name, kind, shape, ms in rows]


def shape_text(sizes: Any) -> str:
    """Format a shape as `1×16×16×8`."""
    return "×".join(str(int(size)) for size in sizes)
