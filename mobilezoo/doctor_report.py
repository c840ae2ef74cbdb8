"""Records of `mobilezoo doctor`: what a file holds, what runs it, where its time goes, and what would help."""

from typing import Any, Literal

from mobilezoo.artifacts import Parity
from mobilezoo.config import Record

UnitStatus = Literal["taken", "partly", "none", "failed", "refused", "unavailable"]


class TensorFacts(Record):
    """A tensor as the file declares it."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    """None for a size that the file leaves open; no shape at all where the file states none."""
    quantization: str = ""
    """Scale and zero point, or how many there are; empty for a tensor of plain numbers."""
    size_bytes: int | None = None
    """Bytes that the file stores for it; None for a tensor that is computed."""


class Finding(Record):
    """Something in the graph that costs time, size or a delegate, and what would help."""

    kind: str
    """Name for --fail-on: transpose, dead, constant, ..."""
    text: str
    """One line."""
    count: int
    where: tuple[str, ...] = ()
    """The first few nodes or tensors."""
    remedy: str = ""
    """What would help; empty where nothing does."""
    command: str = ""
    """The command that does it."""


class UnitVerdict(Record):
    """What a unit or delegate does with a file."""

    unit: str
    """xnnpack, cpu, gpu, npu, coreml or nnapi."""
    how: Literal["run", "rules"]
    """run: the unit itself, or a program that computes as it does, took the file; rules: by published
    source, the most that a device may take."""
    status: UnitStatus
    """taken: all operators; partly: some; none: no operator; failed: wrong answers; refused: it does not take the
    file; unavailable: it is not set up here."""
    reason: str = ""
    """Why it is refused, failed or unavailable; the line that sets a unit up."""
    partitions: int | None = None
    outside: dict[str, int] | None = None
    """Operator → number of occurrences that the unit leaves to the CPU; None where that is unknown."""
    parity: Parity | None = None
    """Against the host's runtime, or PyTorch where the file's weights are known, on the same inputs."""
    against: str = ""
    """What `parity` compares with."""
    notes: tuple[str, ...] = ()
    source: str = ""
    """Where the rules are published."""


class Anatomy(Record):
    """What a file holds, read without running it."""

    target: str
    producer: str = ""
    """Tool and version that the file names as its maker."""
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    ops: dict[str, int]
    """Operator → occurrences, most frequent first; those inside of a delegate are counted where they can be read."""
    custom_ops: tuple[str, ...] = ()
    """Operators that the runtime does not bring along."""
    further_graphs: int = 0
    """Graphs beside the main one, which loops, branches and calls use."""
    weights_bytes: int
    biggest: tuple[TensorFacts, ...]
    """Stored tensors, largest first."""
    weight_types: dict[str, int]
    """Type → bytes of stored tensors."""
    activation_types: dict[str, int]
    """Type → number of computed tensors."""
    scheme: str
    """Quantization in words."""
    metadata: dict[str, str]
    """Entries inside of the file, long ones cut."""
    findings: tuple[Finding, ...] = ()
    rules: tuple[UnitVerdict, ...] = ()


class Part(Record):
    """One thing that the doctor looked at, and why not where it could not."""

    name: str
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    seconds: float = 0.0


class OperatorShare(Record):
    """Time of one type of operator on this machine."""

    type: str
    count: int
    ms: float
    share: float
    """Of the sum over all operators, 0..1."""


class HostTimes(Record):
    """Where the time goes on this machine; no phone's time."""

    runtime: str
    whole_ms: float
    by_type: tuple[OperatorShare, ...]
    slowest: tuple[OperatorShare, ...]
    """Single operators; `type` holds type, output and name."""
    advice: tuple[str, ...] = ()


class CoreCounts(Record):
    """What an emulated core executes in one warm run."""

    core: str
    instructions: int
    cycles: float
    dram_lines: int | None = None
    estimated_ms: float | None = None
    error: str = ""
    """Of the estimate, in words."""
    basis: str = ""


class DoctorReport(Record):
    """All that was found of one file."""

    schema_version: Literal[1] = 1
    path: str
    sha256: str
    size_bytes: int
    target: str
    inputs_from: str = ""
    """Images or noise that the units computed."""
    anatomy: Anatomy | None = None
    """None for a file that cannot be read."""
    units: tuple[UnitVerdict, ...] = ()
    times: HostTimes | None = None
    counts: CoreCounts | None = None
    findings: tuple[Finding, ...] = ()
    """Those of the graph and those of the units, most expensive kind first."""
    parts: tuple[Part, ...] = ()
    failed_on: tuple[str, ...] = ()
    """Conditions of --fail-on that hold, or that could not be judged; a line each."""


def report_dict(report: DoctorReport) -> dict[str, Any]:
    """Plain data, as `--json` prints it.

    Args:
        report: what was found.
    """
    return report.model_dump(mode="json")
