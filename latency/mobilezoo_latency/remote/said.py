"""Numbers that a program on a device has printed: nothing of it is believed before it was looked at.

Samples are finite and positive; other times may be 0. Lines end at line feeds only, so that no other character of a
device's output can make or hide a line.
"""

import math
import re
from typing import NamedTuple

from mobilezoo.errors import DeviceError, printable

KEYS = ("load_ms", "first_run_ms", "warmup_ms", "sample_ms")
NUMBER = re.compile(r"\d{1,15}(\.\d{0,30})?([eE][+-]?\d{1,3})?", re.ASCII)


class Job(NamedTuple):
    """What a runner said of one slice."""

    load_ms: float | None
    """None where the runner does not tell."""
    first_run_ms: float
    warmup_ms: list[float]
    samples_ms: list[float]
    runs_per_sample: int = 1
    threads: int | None = None
    """As the runner tells; None where it does not."""
    delegate: str | None = None


def parse_job(text: str) -> Job:
    """The `KEY VALUE` lines of our runner. Raises DeviceError when it said too little, or no time where one belongs."""
    said: dict[str, list[float]] = {}
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        if key in KEYS:
            said.setdefault(key, []).append(time_ms(value, line, positive=key == "sample_ms"))
    if not said.get("sample_ms") or not said.get("load_ms") or not said.get("first_run_ms"):
        raise DeviceError("the runner ended without samples")
    return Job(said["load_ms"][0], said["first_run_ms"][0], said.get("warmup_ms", []), said["sample_ms"])


def exit_status(line: str) -> int | None:
    """The status in an `exit STATUS` line; None for anything else."""
    found = re.fullmatch(r"exit (\d{1,3})", line.strip(), re.ASCII)
    return int(found[1]) if found else None


def time_ms(value: str, line: str, positive: bool = True, scale: float = 1.0) -> float:
    """A time in ms out of a printed `line`, times `scale`. Raises DeviceError for what is no such time."""
    found = NUMBER.fullmatch(value.strip())
    ms = float(found[0]) * scale if found else math.nan
    if not math.isfinite(ms) or (positive and ms == 0):
        raise DeviceError(f"the runner printed {printable(line.strip()[:200])!r}: {value[:40]!r} is no time of a run")
    return ms
