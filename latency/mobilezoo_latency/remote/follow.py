"""Run a command on a device that outlives the connection, and follow what it prints.

Output and exit status go to two files there. The host asks for the lines it does not have yet: whole lines are counted,
not characters, so no encoding can shift the place, and a line that is half written is asked for again. The status is
read before the output, so whoever sees it has seen all that was printed.
"""

import shlex
import time
from collections.abc import Callable

from mobilezoo.errors import DeviceError, printable
from mobilezoo_latency.remote.link import Link
from mobilezoo_latency.remote.said import exit_status

POLL_S = 0.5
PATIENCE_S, PATIENCE_FACTOR = 300.0, 20.0
"""A run of `duration_s` may take this much, and this many times its duration more."""
MAX_CHARACTERS = 64_000_000


def follow(link: Link, command: str, folder: str, duration_s: float, sleep: Callable[[float], None]) -> str:
    """Everything `command` printed. Raises DeviceError where it fails, prints without end or does not end in time."""
    out = f"{folder}/run-{time.time_ns():x}.txt"
    _start(link, command, out)
    limit_s = PATIENCE_S + PATIENCE_FACTOR * duration_s
    ends = time.monotonic() + limit_s
    text, status = "", None
    while status is None:
        sleep(POLL_S)
        more, status = _read(link, out, text.count("\n"))
        text += more
        if len(text) > MAX_CHARACTERS:
            raise DeviceError(f"{link.name}: the runner printed more than {MAX_CHARACTERS} characters")
        if status is None and time.monotonic() > ends:
            raise DeviceError(f"{link.name}: no end of the run after {limit_s:.0f} s")
    complaint = link.shell(f"cat {_quoted(out, '.err')}; rm -f {_quoted(out)} {_quoted(out, '.err', '.end')}").text
    if status != 0:
        raise DeviceError(f"{link.name}: the runner ended with status {status}: {_last_words(complaint or text)}")
    return text


def _start(link: Link, command: str, out: str) -> None:
    """Begin, with nothing tied to this connection. The status file appears whole or not at all."""
    end, part = _quoted(out, ".end"), _quoted(out, ".end.part")
    wrapped = f"{{ {command}; }} > {_quoted(out)} 2> {_quoted(out, '.err')}; echo exit $? > {part}; mv {part} {end}"
    # In parentheses: a link may append a command of its own, and `&;` is no shell.
    link.shell(f"(nohup sh -c {shlex.quote(wrapped)} > /dev/null 2>&1 < /dev/null &)")


def _read(link: Link, out: str, lines: int) -> tuple[str, int | None]:
    """(what was printed after so many lines, exit status); before the end only whole lines."""
    ask = f"e=$(cat {_quoted(out, '.end')} 2>/dev/null); tail -n +{lines + 1} {_quoted(out)} 2>/dev/null"
    body, _, last = link.shell(f"{ask}; printf '\\n%s\\n' \"$e\"").text.removesuffix("\n").rpartition("\n")
    status = exit_status(last)
    return (body, status) if status is not None else (body[: body.rfind("\n") + 1], None)


def _quoted(out: str, *endings: str) -> str:
    """The file, or its companions, as shell words."""
    return " ".join(shlex.quote(out + ending) for ending in endings or ("",))


def _last_words(text: str) -> str:
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith(("INFO", "WARNING"))]
    return printable(lines[-1].strip())[:400] if lines else "no word"
