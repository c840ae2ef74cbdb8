"""Multiply-adds by the type of their numbers, and how many of each a core does per cycle at best.

The best is what the core's pricing model gives for multiply-adds on whole registers that do not wait for each other.
The same model prices the operators, so that none is above it.
"""

from collections.abc import Iterable, Mapping

from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.counting import Block
from mobilezoo_latency.emulator.layout import Emulator
from mobilezoo_latency.emulator.pricing import DOT, SCALAR_INTEGER, PriceList, macs_of

NEEDS = {"fp32": (), "fp16": ("+fullfp16",), "int8": ("+dotprod",)}
"""Extensions that a core must have for the faster instruction of a type."""
WHOLE_REGISTERS = {"fp32": (0x4E20CC00, 4), "fp16": (0x4E400C00, 8), "int8": (0x4E809400, 16)}
"""(instruction word without its registers, multiply-adds): fmla on 4 x 32 and 8 x 16 bits, sdot on 16 x 8 bits."""
WITHOUT_DOT = (0x0E208000, 8)
"""smlal on 8 x 8 bits."""
ACCUMULATORS, FIRST_SOURCE, SECOND_SOURCE, ROUNDS = 24, 30, 31, 10


def peak_macs_per_cycle(emulator: Emulator, core: EmulatedConfig) -> dict[str, float]:
    """Multiply-adds per cycle at best, by type; a type that the core does not compute in is left out.

    Args:
        emulator: the prepared emulator, which keeps the prices.
        core: which core.
    """
    features = core.mca_features.split(",")
    chosen = {name: WHOLE_REGISTERS[name] for name, needs in NEEDS.items() if set(needs) <= set(features)}
    chosen.setdefault("int8", WITHOUT_DOT)
    blocks = {name: _independent(word) for name, (word, _) in chosen.items()}
    prices = PriceList(emulator, core)
    prices.add(blocks.values())
    return {name: ACCUMULATORS * ROUNDS * macs / prices[blocks[name]] for name, (_, macs) in chosen.items()}


def _independent(word: int) -> str:
    """Code that adds to one register after the other."""
    sources = FIRST_SOURCE << 5 | SECOND_SOURCE << 16
    return "".join(f"{word | sources | register:08x}" for _ in range(ROUNDS) for register in range(ACCUMULATORS))


def macs_by_type(blocks: Iterable[Block], texts: Mapping[str, str]) -> dict[str, int]:
    """Executed multiply-adds on vectors and floating-point registers, by type.

    Args:
        blocks: executed blocks.
        texts: assembly text of their words.
    """
    found = dict.fromkeys(WHOLE_REGISTERS, 0)
    for block in blocks:
        for word in block.words:
            text = texts[word]
            if (macs := macs_of(text)) and not text.startswith(SCALAR_INTEGER):
                found[_type(text)] += macs * block.executions
    return found


def _type(text: str) -> str:
    """Type of the numbers that an instruction multiplies."""
    name, _, operands = text.partition(" ")
    if DOT.match(name) or not name.startswith("f"):
        return "int8"
    first = operands.partition(",")[0]
    return "fp16" if first.startswith("h") or first.endswith("h") else "fp32"
