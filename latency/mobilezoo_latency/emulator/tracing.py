"""One inference on an emulated core in parts: what each operator of the runtime executed.

The runtime's own profiler gives the operators. It reads the clock at each operator's end; native/clock.c answers, and
there the counting plugin ends a part. The kernels and their order are those of any other run.
"""

from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.counting import Block, Plugin, parse_counts, run_counted
from mobilezoo_latency.emulator.layout import SETUP_LINE, Emulator
from mobilezoo_latency.emulator.runtimes import RUNTIMES, find_runtime, is_current

TRACED = tuple(target for target, runtime in RUNTIMES.items() if runtime.traced)


class Part(NamedTuple):
    """What ran between two readings of the clock."""

    blocks: list[Block]
    dram_lines: int


class TracedOperator(NamedTuple):
    """One operator of the runtime, in the order they ran."""

    name: str
    """As the runtime calls it: `Convolution (NHWC, F32) IGEMM`."""
    node: int | None
    """Place in the file's main graph, where the runtime gives it."""
    blocks: list[Block]
    dram_lines: int


class Trace(NamedTuple):
    """One inference."""

    blocks: list[Block]
    """Of the whole run, the profiler's own work included."""
    operators: list[TracedOperator]


def trace_operators(emulator: Emulator, core: EmulatedConfig, model: Path, target: str = "litert") -> Trace:
    """Runs a network twice on an emulated core and counts the second run, operator by operator.

    Args:
        emulator: the prepared emulator.
        core: what QEMU emulates.
        model: the file.
        target: export target of the file, which gives the runtime.

    Raises:
        DeviceError: the runtime's operators are not counted, the emulator was prepared by another version, or the
            runtime refuses the file.
    """
    check_traceable(emulator, target, model.name)
    with temporary_folder("trace") as folder:
        plugin = Plugin(folder / "blocks.txt")
        clock = ["-E", f"LD_PRELOAD={emulator.root / 'bin' / 'clock.so'}"]
        printed = run_counted(emulator, core, model, "operators", plugin, clock, target)
        text = plugin.out.read_text(encoding="ascii")
    counts = parse_counts(text)
    operators = parse_operators(printed.get("operator", []), parse_parts(text))
    if not operators:
        raise DeviceError(f"{model.name}: the runtime's profiler reports no operators")
    return Trace(counts.blocks, operators)


def check_traceable(emulator: Emulator, target: str, name: str) -> None:
    """Checks that operators can be counted.

    Args:
        emulator: the prepared emulator.
        target: export target of the file, which gives the runtime.
        name: the file's name, for the error.

    Raises:
        DeviceError: the runtime's operators are not counted, or the emulator was prepared by another version.
    """
    if target not in TRACED:
        able = ", ".join(TRACED)
        title = RUNTIMES[target].title if target in RUNTIMES else target
        remedy = (
            "--ops without --device times them on this machine" if target in RUNTIMES else f"export with --to {able}"
        )
        raise DeviceError(
            f"{name}: on an emulated core operators are counted for {able} files only, not for {title}: {remedy}"
        )
    find_runtime(emulator, target)
    if not is_current(emulator, target):
        raise DeviceError(
            f"the emulator in {str(emulator.root)!r} was prepared by another version, which counts no operators: "
            f"{SETUP_LINE}"
        )


def parse_parts(text: str) -> list[Part]:
    """Parses the parts of the plugin's file.

    Args:
        text: the whole file, which `parse_counts` accepts.
    """
    codes: dict[str, str] = {}
    parts: list[tuple[dict[str, int], int]] = []
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "part":
            parts.append(({}, int(fields[0])))
        elif kind == "ran":
            parts[-1][0][fields[0]] = int(fields[1])
        elif kind == "block":
            codes[fields[0]] = fields[2]
    return [Part([Block(codes[number], count) for number, count in ran.items()], lines) for ran, lines in parts]


def parse_operators(lines: list[str], parts: list[Part]) -> list[TracedOperator]:
    """Gives each operator its parts; those that enclose others (IF, WHILE, a delegate's call) are left out.

    Args:
        lines: `FIRST LAST NODE NAME` each, as the runner prints them.
        parts: the parts of the run.

    Raises:
        DeviceError: an operator lies outside of the run, or two overlap.
    """
    spans = []
    for line in lines:
        begin, until, index, title = line.split(" ", 3)
        spans.append((int(begin), int(until), int(index), title))
    spans.sort(key=lambda span: (span[0], -span[1]))
    found, end = list[TracedOperator](), -1
    for place, (first, last, node, name) in enumerate(spans):
        following = spans[place + 1] if place + 1 < len(spans) else None
        if following is not None and following[0] <= last:
            if following[1] > last:
                raise DeviceError(f"operators {name!r} and {following[3]!r} overlap: the profiler's clock is not ours")
            continue
        if not end < first <= last < len(parts):
            raise DeviceError(f"operator {name!r} lies outside of the run: the profiler's clock is not ours")
        own = parts[first : last + 1]
        blocks = [block for part in own for block in part.blocks]
        found.append(TracedOperator(name, None if node < 0 else node, blocks, sum(part.dram_lines for part in own)))
        end = last
    return found
