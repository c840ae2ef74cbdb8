"""One inference under QEMU: the executed blocks of instructions and their counts."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo.files import write_text
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.layout import Emulator
from mobilezoo_latency.emulator.refusals import in_words
from mobilezoo_latency.emulator.runtimes import RUNTIMES, Prepared, find_runtime, is_current

INCOMPLETE = "the plugin's counts are incomplete: is the disk full?"
CPUINFO = """processor\t: 0
BogoMIPS\t: 38.40
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 0

"""


class Block(NamedTuple):
    """A run of instructions without a branch inside, and how often it was executed."""

    code: str
    """Instruction words, eight hexadecimal digits each."""
    executions: int

    @property
    def words(self) -> list[str]:
        return [self.code[i : i + 8] for i in range(0, len(self.code), 8)]

    @property
    def instructions(self) -> int:
        """Executed instructions, all executions together."""
        return len(self.code) // 8 * self.executions


class BlockCounts(NamedTuple):
    """Counts of what ran between the runner's markers."""

    blocks: list[Block]
    instructions: int
    accesses: int | None
    misses: tuple[int, ...]
    """Lines that each cache level did not hold; the last figure is what memory delivered."""
    output: tuple[float, ...]
    """The first values of the network's output, where they were computed."""


class Plugin(NamedTuple):
    """What the counting plugin does in a run."""

    out: Path
    """The file that it writes."""
    memory: bool = True
    """Also simulate the data caches; the run then takes longer."""
    compute: bool = False
    """Compute the network's values too: three to seven times slower in floats, and the same counts."""

    def switches(self, emulator: Emulator, core: EmulatedConfig, skipped: Path | None) -> list[str]:
        """QEMU's arguments that load it.

        Args:
            emulator: the prepared emulator.
            core: gives the data caches.
            skipped: file with the instructions that the runner took out.
        """
        plugin = f"{emulator.root}/bin/blockcount.so,out={self.out}"
        if self.memory and core.caches:
            plugin += ",cache=" + ":".join(f"{kib}:{ways}" for kib, ways in core.caches)
        return ["-plugin", plugin if skipped is None else f"{plugin},skipped={skipped}"]


def count_blocks(
    emulator: Emulator,
    core: EmulatedConfig,
    model: Path,
    memory: bool = True,
    target: str = "litert",
    compute: bool = False,
) -> BlockCounts:
    """Runs a network twice on an emulated core and counts the second run.

    Args:
        emulator: the prepared emulator.
        core: what QEMU emulates.
        model: the file.
        memory: also simulate the data caches; the run then takes longer.
        target: export target of the file, which gives the runtime.
        compute: also compute the network's values, which takes longer; else `output` is empty.

    Raises:
        DeviceError: the runtime refused the file, or the run failed.
    """
    with temporary_folder("count") as folder:
        plugin = Plugin(folder / "blocks.txt", memory, compute)
        printed = run_counted(emulator, core, model, "count", plugin, target=target)
        output = tuple(float(value) for line in printed.get("output", ()) for value in line.split())
        return parse_counts(plugin.out.read_text(encoding="ascii"), output)


def run_counted(
    emulator: Emulator,
    core: EmulatedConfig,
    model: Path,
    action: str,
    plugin: Plugin,
    switches: Sequence[str] = (),
    target: str = "litert",
) -> dict[str, list[str]]:
    """Runs `model` with the counting plugin, without the arithmetic where counts do not depend on it.

    Args:
        emulator: the prepared emulator.
        core: which core.
        model: the file.
        action: `count` or `operators`, see `native/runner.c`.
        plugin: what is counted, and where to.
        switches: further arguments of QEMU.
        target: export target of the file, which gives the runtime.

    Returns:
        As `run_on`.

    Raises:
        DeviceError: as `run_on`.
    """
    # a runner of an older set-up cannot skip: it computes, and counts the same
    if not plugin.compute and RUNTIMES[target].skips and is_current(emulator, target):
        table = plugin.out.with_name("skipped.bin")
        # a runtime may refuse values that mean nothing, such as an index that the network computes
        with contextlib.suppress(DeviceError):
            loaded = [*plugin.switches(emulator, core, table), *switches]
            return run_on(emulator, core, model, [action, str(table)], loaded, target)
    return run_on(emulator, core, model, [action], [*plugin.switches(emulator, core, None), *switches], target)


def run_on(
    emulator: Emulator,
    core: EmulatedConfig,
    model: Path,
    action: Sequence[str],
    switches: Sequence[str] = (),
    target: str = "litert",
) -> dict[str, list[str]]:
    """Run `model` on an emulated core to its end.

    Args:
        emulator: the prepared emulator.
        core: which core.
        model: the file.
        action: what the runner does with it, see `native/runner.c`.
        switches: further arguments of QEMU.
        target: export target of the file, which gives the runtime.

    Returns:
        The rest of the runner's lines, in order, by their first word.

    Raises:
        DeviceError: the runtime is not prepared or refuses the file, or the process ends early.
    """
    runtime = find_runtime(emulator, target)
    done = emulator.call([*guest_command(emulator, core, runtime, switches), str(model), "1", *action])
    printed: dict[str, list[str]] = {}
    for key, _, rest in (line.partition(" ") for line in done.stdout.splitlines()):
        printed.setdefault(key, []).append(rest)
    # the runner prints "done" last: a run that ended early must not pass for a small network
    if done.returncode != 0 or "done" not in printed:
        raise DeviceError(f"{model.name} did not run on the emulated {core.name}: {_reason(done.stderr)}")
    return printed


def guest_command(
    emulator: Emulator, core: EmulatedConfig, runtime: Prepared, switches: Sequence[str] = ()
) -> list[str]:
    """First words of a command line that calls a runtime's runner on an emulated core.

    Args:
        emulator: the prepared emulator.
        core: which core.
        runtime: whose runner.
        switches: further arguments of QEMU.
    """
    command = [emulator.tool("qemu-aarch64"), "-cpu", core.qemu_cpu, *switches]
    command += ["-L", str(_sysroot(emulator, core)), "-E", f"LD_LIBRARY_PATH={runtime.libraries}"]
    return [*command, str(runtime.program)]


def parse_counts(text: str, output: tuple[float, ...] = ()) -> BlockCounts:
    """Parses the plugin's file; blocks of equal code are added up.

    Args:
        text: the whole file.
        output: first values of the network's output, kept with the counts.

    Raises:
        DeviceError: the file is truncated.
    """
    if not text.endswith("\n"):
        raise DeviceError(INCOMPLETE)
    blocks: dict[str, int] = {}
    accesses: int | None = None
    misses: tuple[int, ...] = ()
    instructions = -1
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "block":
            blocks[fields[2]] = blocks.get(fields[2], 0) + int(fields[1])
        elif kind == "memory":
            accesses, *levels = (int(field) for field in fields)
            misses = tuple(levels)
        elif kind == "total":
            instructions = int(fields[0])
    counted = [Block(code, count) for code, count in blocks.items()]
    if instructions != sum(block.instructions for block in counted):
        raise DeviceError(INCOMPLETE)
    return BlockCounts(counted, instructions, accesses, misses, output)


def _sysroot(emulator: Emulator, core: EmulatedConfig) -> Path:
    """The guest's view of the file system, with files that describe `core`; made once per part number."""
    root = emulator.root / "cores" / f"{core.qemu_cpu}-{core.cpu_part}"
    if not (root / "lib").exists():
        for name in ("possible", "present", "online"):
            write_text(root / "sys" / "devices" / "system" / "cpu" / name, "0\n")
        text = CPUINFO.format(features=core.cpu_features, part=core.cpu_part)
        write_text(root / "proc" / "cpuinfo", text)
        with contextlib.suppress(FileExistsError):  # another process may have made the same link meanwhile
            (root / "lib").symlink_to(Path("..") / ".." / "sysroot" / "lib")
    return root


def _reason(stderr: str) -> str:
    """The runtime's own refusal, or else the last line that is not its chatter."""
    lines = [line for line in stderr.strip().splitlines() if not line.startswith(("INFO", "WARNING"))]
    named = tuple(f"{runtime.title}: " for runtime in RUNTIMES.values())
    refusals = [line for line in lines if line.startswith(named)]
    return in_words((refusals or lines)[-1]) if lines else "the process ended without a word"
