"""Metrics of training runs, read from their folders."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.errors import MobilezooError, existing_folder

METRICS = "metrics.csv"


@dataclass(frozen=True)
class Curves:
    """The metrics of one run by column; all columns have one value per row of the file."""

    name: str
    columns: dict[str, list[float | None]]

    @property
    def x(self) -> list[float | None]:
        """Epochs; counted from 0 where the file has no such column."""
        rows = len(next(iter(self.columns.values()), []))
        return self.columns.get("epoch") or [float(i) for i in range(rows)]

    def best(self, column: str, *, highest: bool) -> float | None:
        """Best value of a metric over all epochs.

        Args:
            column: name of the metric.
            highest: True where more is better, False where less is.

        Returns:
            None for a metric without values.
        """
        values = [v for v in self.columns.get(column, []) if v is not None]
        if not values:
            return None
        return max(values) if highest else min(values)

    def last(self, column: str) -> float | None:
        """Last value of a metric; None for a metric without values."""
        values = [v for v in self.columns.get(column, []) if v is not None]
        return values[-1] if values else None


def read_curves(run: Path, name: str) -> Curves:
    """Reads the metrics of a run folder.

    Args:
        run: the folder.
        name: label of the run.

    Raises:
        MobilezooError: the metrics are missing or cannot be read as CSV.
    """
    file = existing_folder(run, "run folder") / METRICS
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, restval=""))
    except FileNotFoundError:
        raise MobilezooError(f"{str(run)!r} holds no {METRICS}: is it the folder of a training run?") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MobilezooError(f"{str(file)!r} cannot be read: {error}") from None
    columns = [column for column in (rows[0] if rows else {}) if column]
    return Curves(name, {column: [_number(row[column]) for row in rows] for column in columns})


def _number(text: str | None) -> float | None:
    """None for what is empty, no number or not finite: JSON has no NaN, and a chart leaves a gap."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def run_names(runs: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many of their parents as make each unique."""
    paths = [run.resolve() for run in runs]
    return [_name(path, [other for other in paths if other != path]) for path in paths]


def _name(path: Path, others: list[Path]) -> str:
    depth = 1
    while any(other.parts[-depth:] == path.parts[-depth:] for other in others):
        depth += 1
    return "/".join(path.parts[-depth:])
