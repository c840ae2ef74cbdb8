"""Executed blocks → cycles, by LLVM's machine code analyzer (llvm-mca), and → multiply-adds, by their mnemonics.

Each block is priced as a loop of its own: ITERATIONS repetitions, total cycles divided by them. Prices depend on code,
core and LLVM version alone and are kept, so a second network of the same runtime costs almost nothing.
"""

import json
import re
from collections.abc import Iterable

from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.files import write_text
from mobilezoo.reading import mapping, parse_json, read_json
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.counting import Block
from mobilezoo_latency.emulator.layout import Emulator

ITERATIONS = 40
COVERAGE = 0.997
"""Share of executed instructions that is priced; the rest gets the mean price per instruction."""
BATCH = 100
FLAT_CYCLES_PER_INSTRUCTION = 0.5
"""For blocks that llvm-mca rejects (for example those with LSE atomics); they are a vanishing share."""
UNKNOWN = "unknown"

# 128-bit vectors: lanes by arrangement, and how many products each lane of a dot product sums.
LANES = {"2s": 2, "4s": 4, "2d": 2, "4h": 4, "8h": 8, "8b": 8, "16b": 16}
VECTOR_MAC = re.compile(r"^(fmla|fmls|mla|mls|[su]mlal2?|[su]mlsl2?)$")
DOT = re.compile(r"^([su]dot|usdot|sudot)$")
SCALAR_MAC = re.compile(r"^(fn?m(add|sub)|madd|msub|[su]maddl|[su]msubl)$")
SCALAR_INTEGER = ("madd", "msub", "smadd", "umadd", "smsub", "umsub")
FIRST_ARRANGEMENT = re.compile(r"v\d+\.(\d+[bhsd])")


def disassemble(emulator: Emulator, core: EmulatedConfig, words: Iterable[str]) -> dict[str, str]:
    """Disassembles instruction words.

    Args:
        emulator: the prepared emulator.
        core: gives the instruction set extensions.
        words: eight hexadecimal digits each.

    Returns:
        Assembly text by word; UNKNOWN for words that LLVM cannot decode.
    """
    wanted = sorted(set(words))
    lines = [" ".join(f"0x{word[i : i + 2]}" for i in (6, 4, 2, 0)) for word in wanted]
    command = [emulator.tool(f"llvm-mc-{emulator.installed.llvm_suffix}"), "--disassemble", "-triple=aarch64"]
    done = emulator.call([*command, f"-mattr={core.mca_features}", "-show-encoding"], "\n".join(lines))
    texts = dict.fromkeys(wanted, UNKNOWN)
    for line in done.stdout.splitlines():
        found = re.match(r"\s*(.*?)\s*// encoding: \[(.*?)\]", line)
        if found:
            octets = [octet.strip().removeprefix("0x") for octet in found.group(2).split(",")]
            texts["".join(reversed(octets))] = re.sub(r"\s+", " ", found.group(1))
    return texts


def macs_of(text: str) -> int:
    """Multiply-adds of one instruction, from its assembly text: products that are added to something."""
    name, _, operands = text.partition(" ")
    if SCALAR_MAC.match(name):
        return 0 if operands.endswith(("xzr", "wzr")) else 1
    arrangement = FIRST_ARRANGEMENT.search(operands)
    if DOT.match(name):
        return 4 * LANES[arrangement.group(1)] if arrangement else 0
    if VECTOR_MAC.match(name):
        return LANES[arrangement.group(1)] if arrangement else 1
    return 0


def floating_or_integer_macs(emulator: Emulator, core: EmulatedConfig, blocks: list[Block]) -> int:
    """Counts the multiply-adds on vectors or floating-point registers; scalar integer ones are address arithmetic.

    Args:
        emulator: the prepared emulator.
        core: gives the instruction set extensions.
        blocks: executed blocks.
    """
    texts = disassemble(emulator, core, (word for block in blocks for word in block.words))
    value = {word: 0 if text.startswith(SCALAR_INTEGER) else macs_of(text) for word, text in texts.items()}
    return sum(block.executions * sum(value[word] for word in block.words) for block in blocks)


def cycles_of(emulator: Emulator, core: EmulatedConfig, blocks: list[Block]) -> float:
    """Estimates the cycles of all executed blocks by the core's static model.

    Args:
        emulator: the prepared emulator.
        core: the core whose model prices the blocks.
        blocks: executed blocks.

    Raises:
        DeviceError: this LLVM version has no model of the core.
    """
    return Prices(emulator, core, blocks).of(blocks)


class Prices:
    """Prices of the blocks of one run, also for parts of it.

    Args:
        emulator: the prepared emulator.
        core: the core whose model prices the blocks.
        blocks: all executed blocks; the hottest are priced, the cold rest gets their mean price per instruction.

    Raises:
        DeviceError: this LLVM version has no model of the core.
    """

    def __init__(self, emulator: Emulator, core: EmulatedConfig, blocks: list[Block]) -> None:
        hot = _hottest(blocks)
        prices = PriceList(emulator, core)
        prices.add(block.code for block in hot)
        self._known = {block.code: prices[block.code] for block in hot}
        priced = sum(block.executions * self._known[block.code] for block in hot)
        self._mean = priced / sum(block.instructions for block in hot)

    def of(self, blocks: Iterable[Block]) -> float:
        """Cycles of blocks of this run."""
        priced, cold = 0.0, 0
        for block in blocks:
            price = self._known.get(block.code)
            if price is None:
                cold += block.instructions
            else:
                priced += block.executions * price
        return priced + cold * self._mean


def _hottest(blocks: list[Block]) -> list[Block]:
    """The fewest blocks that hold COVERAGE of all executed instructions."""
    ordered = sorted(blocks, key=lambda block: (-block.executions * len(block.code), block.code))
    left = COVERAGE * sum(block.instructions for block in blocks)
    chosen = []
    for block in ordered:
        if left <= 0:
            break
        chosen.append(block)
        left -= block.instructions
    return chosen


class PriceList:
    """Cycles per execution of a block on one core, kept beside the emulator."""

    def __init__(self, emulator: Emulator, core: EmulatedConfig) -> None:
        self.emulator, self.core = emulator, core
        name = f"{core.mca_cpu}-llvm{emulator.installed.llvm}-{ITERATIONS}.json"
        self.file = emulator.root / "prices" / name
        self.known = self._read()

    def __getitem__(self, code: str) -> float:
        return self.known[code]

    def add(self, codes: Iterable[str]) -> None:
        """Prices the blocks that have no price yet."""
        missing = [code for code in dict.fromkeys(codes) if code not in self.known]
        if not missing:
            return
        # one disassembler call for all blocks: starting it costs more than its work
        words = (code[i : i + 8] for code in missing for i in range(0, len(code), 8))
        texts = disassemble(self.emulator, self.core, words)
        for start in range(0, len(missing), BATCH):
            self._price(missing[start : start + BATCH], texts)
        self.known = {**self._read(), **self.known}  # what other processes added meanwhile
        write_text(self.file, json.dumps(self.known))

    def _price(self, codes: list[str], texts: dict[str, str]) -> None:
        """Prices blocks together; halves the batch when one of them is rejected, down to a flat price."""
        found = self._analyze(codes, texts)
        if found is not None:
            self.known.update(zip(codes, found, strict=True))
        elif len(codes) == 1:
            self.known[codes[0]] = FLAT_CYCLES_PER_INSTRUCTION * len(codes[0]) / 8
        else:
            half = len(codes) // 2
            self._price(codes[:half], texts)
            self._price(codes[half:], texts)

    def _analyze(self, codes: list[str], texts: dict[str, str]) -> list[float] | None:
        """llvm-mca's cycles per iteration of each block, or None where it rejects an instruction."""
        lines = []
        for number, code in enumerate(codes):
            lines.append(f"# LLVM-MCA-BEGIN {number}")
            lines += [_assembly(texts[code[i : i + 8]]) for i in range(0, len(code), 8)]
            lines.append("# LLVM-MCA-END")
        command = [self.emulator.tool(f"llvm-mca-{self.emulator.installed.llvm_suffix}"), "-mtriple=aarch64", "-json"]
        command += [f"-mcpu={self.core.mca_cpu}", f"-mattr={self.core.mca_features}", f"-iterations={ITERATIONS}"]
        done = self.emulator.call(command, "\n".join(lines) + "\n")
        if "unable to" in done.stderr and "target" in done.stderr:
            raise DeviceError(
                f"{self.core.name}: llvm-mca {self.emulator.installed.llvm}: {done.stderr.splitlines()[0]}"
            )
        try:
            regions = parse_json(done.stdout, "llvm-mca")["CodeRegions"]
        except (ConfigError, KeyError, TypeError):
            return None
        found = {int(region["Name"]): region["SummaryView"]["TotalCycles"] / ITERATIONS for region in regions}
        return [found[i] for i in range(len(codes))] if len(found) == len(codes) else None

    def _read(self) -> dict[str, float]:
        try:
            prices: dict[str, float] = mapping(read_json(self.file), str(self.file))
        except ConfigError:  # a cache: what is lost is priced again
            return {}
        return prices


def _assembly(text: str) -> str:
    """Input line for llvm-mca: directives and unknown words become a nop."""
    return "nop" if text == UNKNOWN or text.startswith((".", "udf")) else text
