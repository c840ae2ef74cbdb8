"""Where the milliseconds go: the time of every operator of a file, in the runtime that the file is for.

- ONNX Runtime profiles itself; its per-node times are taken as they are.
- LiteRT hands whole graphs to XNNPACK, which tells nothing of its parts. Every operator is cut into a file of its own
  and timed there, warm; the parts' sum is printed beside the whole, since fusing and caches make the two differ.
- ExecuTorch's event trace (ETDump) is read by its own inspector; it looks into the XNNPACK delegate.

All of it happens in a worker process (`operator_times.py`), so that a runtime that crashes is one line here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo_latency.contract import load_artifact, unproven

TARGETS = ("onnx", "litert", "executorch")


class OperatorTime(NamedTuple):
    """One operator's median time."""

    name: str
    """The node's name, or its number in the file."""
    type: str
    shape: str
    """Of its output."""
    ms: float
    share: float
    """Of the sum over all operators, 0..1."""


class Profile(NamedTuple):
    """A network's operators in the order they run."""

    runtime: str
    whole_ms: float
    """The network as one, measured in the same process."""
    operators: list[OperatorTime]
    how: str
    left_out: tuple[str, ...] = ()
    """Operators that cannot run alone, each with the reason."""
    unproven: str | None = None
    """Why nobody compared the file with PyTorch; None where somebody did."""

    @property
    def sum_ms(self) -> float:
        return sum(op.ms for op in self.operators)


def profile_operators(path: str | Path, threads: int = 1, command: list[str] | None = None) -> Profile:
    """Per-operator times of an exported file on this machine. Raises DeviceError where its runtime gives none."""
    from mobilezoo_latency.session import ask_once

    file = load_artifact(path)
    if file.record.target not in TARGETS:
        raise DeviceError(
            f"{file.path.name}: no per-operator times for {file.record.target!r} files on this machine: "
            f"export to {', '.join(TARGETS)}"
        )
    said = ask_once(file.path, {"op": "operators", "threads": threads}, command)
    left_out = tuple(said["left_out"])
    if not said["operators"]:
        reason = f": {left_out[0]}" if left_out else ""
        raise DeviceError(f"{file.path.name}: none of its operators can be timed alone{reason}")
    operators = [OperatorTime(*row) for row in said["operators"]]
    return Profile(said["runtime"], said["whole_ms"], operators, said["how"], left_out, unproven(file.record))


def by_type(operators: Sequence[OperatorTime]) -> list[tuple[str, int, float, float]]:
    """(type, how many, ms, share), most expensive first."""
    found: dict[str, tuple[int, float, float]] = {}
    for op in operators:
        count, ms, share = found.get(op.type, (0, 0.0, 0.0))
        found[op.type] = (count + 1, ms + op.ms, share + op.share)
    return sorted(((name, *sums) for name, sums in found.items()), key=lambda row: -row[2])


def advice(operators: Sequence[OperatorTime]) -> list[str]:
    """What stands out, as sentences; rules of thumb, each with the figure it rests on."""
    shares = [(name.upper(), part) for name, _, _, part in by_type(operators)]

    def total(*words: str) -> float:
        return sum(part for name, part in shares if any(word in name for word in words))

    said = []
    if (moved := total("TRANSPOSE", "RESHAPE", "PAD", "CONCAT", "SLICE", "SPLIT", "GATHER", "REORDER")) > 0.1:
        said.append(f"{moved:.0%} goes into moving data: look for transposes and concatenations the export could avoid")
    if (activated := total("SWISH", "LOGISTIC", "SIGMOID", "GELU", "ERF", "SOFTMAX", "TANH")) > 0.15:
        said.append(f"{activated:.0%} goes into activations and softmax: a ReLU is fused into its convolution for free")
    first = max(operators, key=lambda op: op.share)
    if first.share > 0.2:
        said.append(f"one operator takes {first.share:.0%}: {first.type} {first.shape} ({first.name})")
    depthwise = total("DEPTHWISE", "DWCONV")
    if depthwise > 0.5:
        said.append(f"{depthwise:.0%} goes into depthwise convolutions: they are bound by memory, not by multiply-adds")
    return said
