"""Parses the numbers that a program on a device printed; every one is checked.

Samples are finite and positive; other times may be 0. Lines end at line feeds only, so that no other character of a
device's output can make or hide a line.
"""

import math
import re
from typing import NamedTuple

from mobilezoo.errors import DeviceError, printable

KEYS = ("load_ms", "first_run_ms", "warmup_ms", "sample_ms")
NUMBER = re.compile(r"\d{1,15}(\.\d{0,30})?([eE][+-]?\d{1,3})?", re.ASCII)


class SliceTimes(NamedTuple):
    """Times of one slice, as a runner reported them."""

    load_ms: float | None
    """None if the runner does not report it."""
    first_run_ms: float
    warmup_ms: list[float]
    samples_ms: list[float]
    runs_per_sample: int = 1
    threads: int | None = None
    """As reported by the runner; None if it does not report it."""
    delegate: str | None = None


def parse_times(text: str) -> SliceTimes:
    """Parses the `KEY VALUE` lines of our runner. Raises DeviceError for missing keys and values that are no time."""
    found: dict[str, list[float]] = {}
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        if key in KEYS:
            found.setdefault(key, []).append(time_ms(value, line, positive=key == "sample_ms"))
    if not found.get("sample_ms") or not found.get("load_ms") or not found.get("first_run_ms"):
        raise DeviceError("the runner ended without samples")
    return SliceTimes(found["load_ms"][0], found["first_run_ms"][0], found.get("warmup_ms", []), found["sample_ms"])


def exit_status(line: str) -> int | None:
    """Returns the status of an `exit STATUS` line; None for anything else."""
    found = re.fullmatch(r"exit (\d{1,3})", line.strip(), re.ASCII)
    return int(found[1]) if found else None


def time_ms(value: str, line: str, positive: bool = True, scale: float = 1.0) -> float:
    """Parses a printed time.

    Args:
        value: the number in the line.
        line: the whole line, for messages.
        positive: refuse 0.
        scale: milliseconds per printed unit.

    Returns:
        Milliseconds.

    Raises:
        DeviceError: `value` is no finite time.
    """
    found = NUMBER.fullmatch(value.strip())
    ms = float(found[0]) * scale if found else math.nan
    if not math.isfinite(ms) or (positive and ms == 0):
        raise DeviceError(f"the runner printed {printable(line.strip()[:200])!r}: {value[:40]!r} is no time of a run")
    return ms
