"""Conditions of `mobilezoo doctor --fail-on`: names of findings, and of what a file weighs or leaves to the CPU."""

import re
from typing import NamedTuple

from mobilezoo.doctor_report import DoctorReport, UnitVerdict
from mobilezoo.errors import ConfigError, UnknownNameError

FINDINGS = (
    "accuracy",
    "activation",
    "batch-norm",
    "constant",
    "constant-left",
    "custom",
    "dead",
    "deep",
    "duplicate",
    "float-island",
    "gpu-fault",
    "identity",
    "open-shape",
    "transpose",
    "transpose-pair",
    "zero-weights",
)
"""Kinds of findings; their count is compared."""
MEASURES = ("fallback", "operators", "parity", "partitions", "size", "unread", "weights")
BY_UNIT = ("fallback", "parity", "partitions")
"""Conditions that can name a unit: `fallback:gpu`."""
FACTORS = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
PATTERN = re.compile(r"([a-z-]+)(?::([a-z]+))?(?:[>=](\d+(?:\.\d+)?)([kMG]?B)?)?")
GRAMMAR = "NAME, NAME>NUMBER or NAME:UNIT with commas between, in quotes: 'fallback,transpose>2,size>8MB,fallback:gpu'"


class Condition(NamedTuple):
    """One condition; it holds where its number is above `most`."""

    text: str
    name: str
    unit: str
    most: float


def parse_conditions(text: str) -> list[Condition]:
    """Read the value of --fail-on.

    Args:
        text: conditions with commas between: a finding's kind, `fallback`, `parity`, `unread`, `partitions>N`,
            `operators>N`, `size>8MB` or `weights>8MB`; the first three of the measures take a unit, `fallback:gpu`.
            `=` stands for `>`, which a shell takes for itself without quotes.

    Raises:
        ConfigError: a condition is not understood.
        UnknownNameError: no condition has this name.
    """
    return [_parsed(part.strip()) for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Condition:
    found = PATTERN.fullmatch(text)
    if found is None:
        raise ConfigError(f"--fail-on {text!r} is not understood: {GRAMMAR}")
    name, unit, number, scale = found[1], found[2] or "", found[3], found[4] or ""
    if name not in (*FINDINGS, *MEASURES):
        raise UnknownNameError("condition of --fail-on", name, (*FINDINGS, *MEASURES))
    if unit and name not in BY_UNIT:
        raise ConfigError(f"--fail-on {text!r}: {name} has no unit")
    if scale and name not in ("size", "weights"):
        raise ConfigError(f"--fail-on {text!r}: {name} is a number, not bytes")
    if number is None and name in ("size", "weights", "operators"):
        raise ConfigError(f"--fail-on {text!r}: say how much is too much, for example '{name}>8MB', in quotes")
    default = 1.0 if name == "partitions" else 0.0
    return Condition(text, name, unit, float(number) * FACTORS[scale] if number else default)


def failing(conditions: list[Condition], report: DoctorReport) -> list[str]:
    """Conditions that hold, and those that could not be judged, a line each.

    Args:
        conditions: what must not be.
        report: what was found.
    """
    return [line for condition in conditions if (line := _judge(condition, report)) is not None]


def _judge(condition: Condition, report: DoctorReport) -> str | None:
    name = condition.name
    if name == "size":
        return _above(condition, report.size_bytes, f"{report.size_bytes / 1e6:.2f} MB")
    if name == "unread":
        failed = [part.name for part in report.parts if part.status == "failed"]
        return _above(condition, len(failed), f"{', '.join(failed)} could not be done")
    if name in BY_UNIT:
        return _of_units(condition, report)
    if report.anatomy is None:
        return f"{condition.text}: cannot be judged, the file could not be read"
    if name == "weights":
        return _above(
            condition, report.anatomy.weights_bytes, f"{report.anatomy.weights_bytes / 1e6:.2f} MB of weights"
        )
    if name == "operators":
        total = sum(report.anatomy.ops.values())
        return _above(condition, total, f"{total} operators")
    hits = [one for one in report.findings if one.kind == name]
    return _above(condition, sum(one.count for one in hits), "; ".join(one.text for one in hits))


def _above(condition: Condition, number: float, text: str) -> str | None:
    return f"{condition.text}: {text}" if number > condition.most else None


def _of_units(condition: Condition, report: DoctorReport) -> str | None:
    """Judge units that ran; those that go by rules, and those that are not set up, only where they are named."""
    asked = [one for one in report.units if (one.unit == condition.unit if condition.unit else one.how == "run")]
    judged = [one for one in asked if one.status != "unavailable" and _number(condition.name, one) is not None]
    if not judged:
        skipped = next((part.reason for part in report.parts if part.name == condition.unit and part.reason), "")
        return f"{condition.text}: cannot be judged, {skipped or 'no unit answered'}"
    found = [(one, number) for one in judged if (number := _number(condition.name, one) or 0) > condition.most]
    if not found:
        return None
    return f"{condition.text}: " + "; ".join(f"{one.unit} {_words(condition.name, one, n)}" for one, n in found)


def _number(name: str, verdict: UnitVerdict) -> float | None:
    """What a condition compares of one unit; None where the unit does not report it."""
    if name == "parity":
        return None if verdict.parity is None else float(verdict.status == "failed")
    if verdict.status == "refused":
        return float("inf")
    if name == "partitions":
        return verdict.partitions
    outside = sum((verdict.outside or {}).values())
    return None if verdict.outside is None and verdict.status != "partly" else max(outside, verdict.status == "partly")


def _words(name: str, verdict: UnitVerdict, number: float) -> str:
    if verdict.status in ("refused", "failed") and verdict.reason:
        return f"{verdict.status}: {verdict.reason}"
    if name == "partitions":
        return f"makes {number:.0f} partitions"
    listed = ", ".join(f"{count} {op}" for op, count in list((verdict.outside or {}).items())[:4])
    return f"leaves out {listed or 'a part'}"
