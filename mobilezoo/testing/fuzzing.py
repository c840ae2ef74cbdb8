"""Fuzzing of file readers: seeded damage to files, which a reader must accept or refuse in one line."""

import contextlib
import random
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mobilezoo.errors import MobilezooError

CPU_S = 20
MEMORY_BYTES = 4 << 30
"""Address space beyond what the process has already."""
NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\1\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
)
TOKENS = (
    *("", "null", "true", "no", "-1", "0", "1", "2", "1e400", "-1e-300", ".nan", "NaN", "1e9", "999999999", "9" * 30),
    *("9" * 5000, "2020-01-01", "12:30:45", "0o17", "!!set {a}", "!!binary aGk=", "&a [*a]", "*a", "<<", "{}", "[]"),
    *(
        "[[]]",
        '{"a": 1}',
        "[1, 2, 3]",
        '""',
        '"é\\u2028"',
        "x" * 3000,
        "../../etc/passwd",
        "/dev/zero",
        "a\\0b",
        "?",
        "- ",
    ),
    *('"\\ud800"', "[" * 300, "\t", "\r", "#", "%YAML 1.1\n---\n", "\ufeff", "١٢", "0.5", "'a'", "float32", "host"),
)
"""Hostile replacements of scalar values."""


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Damages bytes one to twenty times: changed, repeated, removed, replaced by extreme numbers, or truncated.

    Args:
        data: the original.
        draw: source of randomness.
    """
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at, length = draw.randrange(len(found) + 1), draw.choice((1, 2, 4, 8, 64, 500))
        new = draw.choice(
            (
                lambda: draw.randbytes(1),
                lambda: draw.choice(NUMBERS),
                lambda: bytes(found[at : at + length]) * 2,  # noqa: B023 - called at once
                lambda: b"",
            )
        )()
        found[at : at + (length if not new else len(new))] = new
    return bytes(found[: draw.randrange(len(found) + 1)] if draw.random() < 0.1 else found)


def rewritten(text: str, draw: random.Random) -> str:
    """Damages YAML or JSON one to four times: scalars replaced by hostile ones, lines repeated, removed or indented.

    Args:
        text: the original.
        draw: source of randomness.
    """
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        number = draw.randrange(len(lines))
        words = _words(lines[number])
        kind = draw.randrange(8)
        if kind == 0:
            lines.insert(draw.randrange(len(lines) + 1), lines[number])
        elif kind == 1 and len(lines) > 1:
            del lines[number]
        elif kind == 2:
            lines[number] = " " * draw.randrange(1, 4) + lines[number]
        elif words:
            start, end = draw.choice(words)
            lines[number] = lines[number][:start] + draw.choice(TOKENS) + lines[number][end:]
    return "".join(lines)


def _words(line: str) -> list[tuple[int, int]]:
    """Returns (start, end) of the scalars of a line, quotes included."""
    import re

    return [found.span() for found in re.finditer(r'"[^"]*"|[^\s{}\[\],:"#]+', line)]


def damages(corpus: Mapping[str, bytes], rounds: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Generates (name of the original, damaged bytes), all originals in turn.

    Args:
        corpus: name → original; most text is damaged by `rewritten`, the rest by `damaged`.
        rounds: number of results.
        seed: of the damage.
    """
    draw, names = random.Random(seed), sorted(corpus)
    for number in range(rounds):
        name = names[number % len(names)]
        data = corpus[name]
        with contextlib.suppress(UnicodeDecodeError):
            if draw.random() < 0.8:
                yield name, rewritten(data.decode(), draw).encode("utf-8", "surrogatepass")
                continue
        yield name, damaged(data, draw)


def error_line(call: Callable[[], Any], what: str) -> str:
    """Runs a call under the limits of `bounded` and returns the message of its MobilezooError, empty on success.

    Args:
        call: a reader applied to a damaged file.
        what: description of the case, for the failure message.

    Raises:
        AssertionError: the call raised another exception, or its message is not one printable line.
    """
    try:
        with bounded():
            call()
        return ""
    except MobilezooError as error:
        line = str(error)
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    assert line, f"{what}: an error without words"
    assert line.isprintable(), f"{what}: not one line of printable text: {line[:500]!r}"
    assert len(line) < 4000, f"{what}: {len(line)} characters"
    return line


@contextlib.contextmanager
def bounded(cpu_s: float = CPU_S, memory_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Limits the CPU time and memory of a `with` block.

    Args:
        cpu_s: seconds of CPU time of the process.
        memory_bytes: address space beyond what the process has already.

    Raises:
        TimeoutError: the block took more CPU time.
        MemoryError: the block requested more memory.
    """

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {cpu_s} s of CPU time")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
