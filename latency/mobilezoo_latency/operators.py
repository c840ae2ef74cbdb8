"""Time of every operator of a file, in the runtime that the file is for.

The target's own profiler (`Exporter.profile_operators`) runs in a worker process, so that a runtime that crashes is one
line here.
"""

from collections.abc import Sequence
from pathlib import Path

from mobilezoo.errors import DeviceError
from mobilezoo_export.records import OperatorProfile, OperatorTime
from mobilezoo_export.registry import TARGETS, load_exporter
from mobilezoo_latency.contract import load_artifact, unproven
from mobilezoo_latency.session import request_once


def profile_operators(path: str | Path, threads: int = 1, command: list[str] | None = None) -> OperatorProfile:
    """Measure per-operator times of an exported file on this machine, in a worker process.

    Args:
        path: the exported file.
        threads: threads that the runtime may use.
        command: command line of the worker, for tests.

    Raises DeviceError for a target without an operator profiler, or when no operator can be timed.
    """
    file = load_artifact(path)
    if not load_exporter(file.record.target).has_operator_profiler():
        able = [name for name, cls in TARGETS.load_all().items() if cls.has_operator_profiler()]
        raise DeviceError(
            f"{file.path.name}: no per-operator times for {file.record.target!r} files on this machine: "
            f"export to {', '.join(able)}"
        )
    answer = request_once(file.path, {"op": "operators", "target": file.record.target, "threads": threads}, command)
    left_out = tuple(answer["left_out"])
    if not answer["operators"]:
        reason = f": {left_out[0]}" if left_out else ""
        raise DeviceError(f"{file.path.name}: none of its operators can be timed alone{reason}")
    operators = [OperatorTime(*row) for row in answer["operators"]]
    return OperatorProfile(
        answer["runtime"], answer["whole_ms"], operators, answer["how"], left_out, unproven(file.record)
    )


def by_type(operators: Sequence[OperatorTime]) -> list[tuple[str, int, float, float]]:
    """Sums by operator type: (type, count, ms, share), most expensive first."""
    found: dict[str, tuple[int, float, float]] = {}
    for op in operators:
        count, ms, share = found.get(op.type, (0, 0.0, 0.0))
        found[op.type] = (count + 1, ms + op.ms, share + op.share)
    return sorted(((name, *sums) for name, sums in found.items()), key=lambda row: -row[2])


def advice(operators: Sequence[OperatorTime]) -> list[str]:
    """Rules of thumb that apply to these times, as sentences with the figures they rest on."""
    shares = [(name.upper(), part) for name, _, _, part in by_type(operators)]

    def total(*words: str, but_not: str = "\n") -> float:
        return sum(part for name, part in shares if but_not not in name and any(word in name for word in words))

    found = []
    if (
        moved := total("TRANSPOSE", "RESHAPE", "PAD", "CONCAT", "SLICE", "SPLIT", "GATHER", "REORDER", but_not="CONV")
    ) > 0.1:
        found.append(
            f"{moved:.0%} goes into moving data: look for transposes and concatenations the export could avoid"
        )
    if (activated := total("SWISH", "LOGISTIC", "SIGMOID", "GELU", "ERF", "SOFTMAX", "TANH")) > 0.15:
        found.append(
            f"{activated:.0%} goes into activations and softmax: a ReLU is fused into its convolution for free"
        )
    first = max(operators, key=lambda op: op.share)
    if first.share > 0.2:
        found.append(f"one operator takes {first.share:.0%}: {first.type} {first.shape} ({first.name})")
    depthwise = total("DEPTHWISE", "DWCONV")
    if depthwise > 0.5:
        found.append(
            f"{depthwise:.0%} goes into depthwise convolutions: they are bound by memory, not by multiply-adds"
        )
    return found
