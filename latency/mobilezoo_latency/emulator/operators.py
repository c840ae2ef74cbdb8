"""Where a network's cycles go on an emulated core, operator by operator."""

from typing import NamedTuple

from mobilezoo_latency.contract import ArtifactFile, unproven
from mobilezoo_latency.emulator.attribution import Run, assign
from mobilezoo_latency.emulator.device import EmulatedDevice
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.peaks import macs_by_type, peak_macs_per_cycle
from mobilezoo_latency.emulator.pricing import Prices, disassemble
from mobilezoo_latency.emulator.runtimes import find_runtime
from mobilezoo_latency.emulator.tracing import trace_operators
from mobilezoo_latency.estimators.kernels import Kernel, kernels_of

HOW = "one inference in parts, at the runtime's own profiler's readings of the clock"
MAP_RANK = 4


class CountedOperator(NamedTuple):
    """One operator of the runtime during one warm inference."""

    name: str
    """Place in the file, `#12`; empty for an operator that the runtime added."""
    type: str
    """The file's operator, CONV_2D; the runtime's name for one that it added."""
    kernel: str
    """The runtime's name, with what it computes in."""
    shape: str
    """Shape of its output, `1×16×16×8`."""
    stage: str
    """Height and width of the last map before its end, `56×56`."""
    macs: int
    """Multiply-adds of the file's operator; 0 for one without."""
    executed_macs: int
    """Multiply-adds among the executed instructions, edges and padded tiles included."""
    computes_in: str
    """fp32, fp16 or int8: the type of most executed multiply-adds; empty where there are none."""
    instructions: int
    cycles: float
    dram_lines: int
    share: float
    """Share of the sum of all operators' cycles, 0..1."""
    share_of_peak: float | None
    """Multiply-adds per cycle over the core's best for that type, 0..1; None without multiply-adds."""


class CountedProfile(NamedTuple):
    """A network's operators on one core, in the order they ran."""

    runtime: str
    core: str
    whole_cycles: float
    """Of the whole network, counted without a profiler."""
    operators: list[CountedOperator]
    peak_macs_per_cycle: dict[str, float]
    """The core's best, by type."""
    how: str = HOW
    unproven: str | None = None
    """Why the file was not compared with PyTorch; None for a file that was."""

    @property
    def sum_cycles(self) -> float:
        """Sum over all operators."""
        return sum(operator.cycles for operator in self.operators)


class CountedType(NamedTuple):
    """Sums over the operators of one type."""

    type: str
    operators: int
    macs: int
    cycles: float
    share: float
    share_of_peak: float | None
    """Cycles at the core's best over cycles, of the operators with multiply-adds."""


def by_type(profile: CountedProfile) -> list[CountedType]:
    """Sums by operator type, most cycles first."""
    found: dict[str, list[CountedOperator]] = {}
    for operator in profile.operators:
        found.setdefault(operator.type, []).append(operator)
    sums = []
    for name, operators in found.items():
        busy = [(op.cycles, op.share_of_peak) for op in operators if op.share_of_peak is not None]
        of_peak = sum(cycles * share for cycles, share in busy) / sum(cycles for cycles, _ in busy) if busy else None
        cycles, share = sum(op.cycles for op in operators), sum(op.share for op in operators)
        sums.append(CountedType(name, len(operators), sum(op.macs for op in operators), cycles, share, of_peak))
    return sorted(sums, key=lambda row: -row.cycles)


def count_operators(device: EmulatedDevice, file: ArtifactFile, whole_cycles: float) -> CountedProfile:
    """Counts the operators of an exported file.

    Args:
        device: the core, with the file's runtime.
        file: the file.
        whole_cycles: cycles of the whole file, counted without a profiler.

    Raises:
        DeviceError: the runtime gives no operators, the emulator was prepared by another version, or the file is
            refused.
    """
    emulator, core = find_emulator(), device.config
    trace = trace_operators(emulator, core, file.path, device.target)
    prices = Prices(emulator, core, trace.blocks)
    texts = disassemble(emulator, core, (word for block in trace.blocks for word in block.words))
    executed = [macs_by_type(operator.blocks, texts) for operator in trace.operators]
    peak = peak_macs_per_cycle(emulator, core)
    cycles = [prices.of(operator.blocks) for operator in trace.operators]
    nodes = kernels_of(file.path)
    runs = [Run(op.name, op.node, sum(macs.values())) for op, macs in zip(trace.operators, executed, strict=True)]
    found, stage = list[CountedOperator](), ""
    for operator, macs, taken, place in zip(trace.operators, executed, cycles, assign(runs, nodes), strict=True):
        node = None if place is None else nodes[place]
        stage = _map_size(node) or stage
        best = max(macs, key=lambda name: macs[name])
        computes_in = best if macs[best] else ""
        useful = round(node.macs) if node else 0
        found.append(
            CountedOperator(
                name="" if place is None else f"#{place}",
                type=node.operator if node else operator.name.partition(" (")[0],
                kernel=operator.name,
                shape="×".join(map(str, node.shape)) if node else "",
                stage=stage,
                macs=useful,
                executed_macs=sum(macs.values()),
                computes_in=computes_in,
                instructions=sum(block.instructions for block in operator.blocks),
                cycles=taken,
                dram_lines=operator.dram_lines,
                share=taken / (sum(cycles) or 1.0),
                share_of_peak=useful / taken / peak[computes_in] if useful and computes_in in peak and taken else None,
            )
        )
    name = find_runtime(emulator, device.target).name
    return CountedProfile(name, core.name, whole_cycles, found, peak, unproven=unproven(file.record))


def _map_size(node: Kernel | None) -> str:
    """`56×56` of an operator that writes a map of several pixels, [N, H, W, C]; else empty."""
    if node is None or len(node.shape) != MAP_RANK or node.shape[1] * node.shape[2] == 1:
        return ""
    return f"{node.shape[1]}×{node.shape[2]}"
