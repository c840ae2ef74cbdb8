"""What LiteRT's log states of a file: operators that the GPU does not take, and why a file does not load."""

import re
from collections import Counter
from typing import NamedTuple

from mobilezoo.errors import first_line

LISTED = "Following operations are not supported by GPU delegate:"
SUMMARY = re.compile(
    r"^(\d+|No) operations will run on the GPU, and (?:the remaining|all) (\d+) operations? will run on the CPU", re.M
)
REFUSED = re.compile(r"^([A-Z][A-Z0-9_]*): (.+)$", re.ASCII)
CAUSES = (
    (re.compile(r"No adapters found"), "no Vulkan driver answers"),
    (re.compile(r"unresolved custom op: (\S+?)\.?$", re.M), "operator {0!r} is a custom one that LiteRT does not hold"),
    (re.compile(r"Didn't find op for builtin opcode '(\w+)'"), "LiteRT has no kernel for operator {0}"),
    (re.compile(r"Variable tensors not yet supported"), "it keeps a state (variable tensors)"),
)
"""Lines of the log that name the cause better than the error does."""


class Left(NamedTuple):
    """Operators that the GPU leaves to the CPU."""

    taken: int
    left: int
    refused: Counter[str]
    """Operator → number of different reasons or tensors that LiteRT lists; it lists equal ones once."""
    reasons: tuple[str, ...]


def left_of(log: str) -> Left | None:
    """Reads which operators stay on the CPU; None where the log lists none.

    Args:
        log: what LiteRT wrote while it loaded the file.
    """
    found = SUMMARY.search(log)
    if found is None:
        return None
    listed = log[: found.start()].rpartition(LISTED)[2]
    lines = [match for line in listed.splitlines() if (match := REFUSED.match(line.strip()))]
    reasons = tuple(first_line(line[0]) for line in lines)
    taken = 0 if found[1] == "No" else int(found[1])
    return Left(taken, int(found[2]), Counter(line[1] for line in lines), reasons)


def cause_of(log: str, error: BaseException) -> str:
    """Names why a file did not load, in one line.

    Args:
        log: what LiteRT wrote while it loaded the file.
        error: what it raised.
    """
    for pattern, words in CAUSES:
        if found := pattern.search(log):
            return words.format(*found.groups())
    errors = [line.partition("ERROR: ")[2] for line in log.splitlines() if line.startswith("ERROR: ")]
    named = [line for line in errors if line and not line.startswith(("[", "Following"))]
    return first_line(named[0] if named else error)
