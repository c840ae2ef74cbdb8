"""Runs a command on a device that outlives the connection, and follows its output.

Output and exit status go to two files there. The host fetches the lines it does not have yet, a piece at a time: whole
lines are counted, not characters, so no encoding can shift the place, and a line that is half written is fetched again.
The status is read before the output and returned only with the last piece, so a status means that the output is
complete. Output without end, in many lines or in one, ends the run.
"""

import contextlib
import shlex
import time
from collections.abc import Callable

from mobilezoo.errors import DeviceError, MobilezooError, printable
from mobilezoo_latency.emulator.refusals import in_words
from mobilezoo_latency.remote.link import Link
from mobilezoo_latency.remote.parsing import exit_status

POLL_S = 0.5
PATIENCE_S, PATIENCE_FACTOR = 300.0, 20.0
"""A run of `duration_s` may take PATIENCE_S + PATIENCE_FACTOR * duration_s seconds."""
MAX_CHARACTERS = 64_000_000
PIECE_BYTES = 4_000_000
MAX_LINE = 1_000_000
"""Characters; no more than a quarter of a piece, as characters have up to four bytes."""
BLOCKS = 500_000
"""Limit of the file on the device, in blocks of 512 or 1,024 bytes as its shell counts them."""


def follow(link: Link, command: str, folder: str, duration_s: float, sleep: Callable[[float], None]) -> str:
    """Runs a command on a device and returns everything it printed.

    Args:
        link: the connection.
        command: POSIX shell command, already quoted.
        folder: folder on the device for output and status.
        duration_s: expected seconds; see PATIENCE_S for the limit.
        sleep: called with the seconds between two looks.

    Raises:
        DeviceError: it fails, prints without end or does not end in time.
    """
    out = f"{folder}/run-{time.time_ns():x}.txt"
    _start(link, command, out)
    try:
        text, status = _all(link, out, PATIENCE_S + PATIENCE_FACTOR * duration_s, sleep)
    except DeviceError:
        with contextlib.suppress(MobilezooError):
            link.shell(f"p=$(cat {_quoted(out, '.pid')}); kill -- -$p || kill $p; rm -f {_files(out)}")
        raise
    complaint = link.shell(f"tail -c 4000 {_quoted(out, '.err')}; rm -f {_files(out)}").text
    if status != 0:
        raise DeviceError(f"{link.name}: the runner ended with status {status}: {_last_words(complaint or text)}")
    return text


def _start(link: Link, command: str, out: str) -> None:
    """Starts the command, tied to nothing of this connection. The status file appears whole or not at all."""
    end, part = _quoted(out, ".end"), _quoted(out, ".end.part")
    wrapped = f"echo $$ > {_quoted(out, '.pid')}; ulimit -f {BLOCKS} 2> /dev/null; "
    wrapped += f"{{ {command}; }} > {_quoted(out)} 2> {_quoted(out, '.err')}; echo exit $? > {part}; mv {part} {end}"
    # In parentheses: a link may append a command of its own, and `&;` is no shell. A session of its own can be ended
    # as a whole; where there is no setsid, only the shell is.
    detached = f"$(command -v setsid) nohup sh -c {shlex.quote(wrapped)}"
    link.shell(f"({detached} > /dev/null 2>&1 < /dev/null &)")


def _all(link: Link, out: str, limit_s: float, sleep: Callable[[float], None]) -> tuple[str, int]:
    """Returns (everything printed, exit status). Raises DeviceError."""
    ends = time.monotonic() + limit_s
    pieces, lines, size = list[str](), 0, 0
    while True:
        sleep(POLL_S)
        more, status = _read(link, out, lines)
        pieces.append(more)
        lines, size = lines + more.count("\n"), size + len(more)
        if size > MAX_CHARACTERS:
            raise DeviceError(f"{link.name}: the runner printed more than {MAX_CHARACTERS} characters")
        if status is not None:
            return "".join(pieces), status
        if time.monotonic() > ends:
            raise DeviceError(f"{link.name}: no end of the run after {limit_s:.0f} s")


def _read(link: Link, out: str, lines: int) -> tuple[str, int | None]:
    """Returns (output after so many lines, exit status); before the end only whole lines. Raises DeviceError."""
    rest = f"tail -n +{lines + 1} {_quoted(out)} 2>/dev/null"
    ask = f"e=$(cat {_quoted(out, '.end')} 2>/dev/null); n=$({rest} | head -c {PIECE_BYTES + 1} | wc -c)"
    ask += f'; [ "$n" -le {PIECE_BYTES} ] || e=; {rest} | head -c {PIECE_BYTES}'
    body, _, last = link.shell(f"{ask}; printf '\\n%s\\n' \"$e\"").text.removesuffix("\n").rpartition("\n")
    whole = body.rfind("\n") + 1
    if len(body) - whole > MAX_LINE:
        raise DeviceError(f"{link.name}: the runner printed a line of more than {MAX_LINE} characters")
    status = exit_status(last)
    return (body, status) if status is not None else (body[:whole], None)


def _files(out: str) -> str:
    return _quoted(out, "", ".err", ".end", ".end.part", ".pid")


def _quoted(out: str, *endings: str) -> str:
    """The file, or its companions, as shell words."""
    return " ".join(shlex.quote(out + ending) for ending in endings or ("",))


def _last_words(text: str) -> str:
    lines = [line for line in text[-4000:].split("\n") if line.strip() and not line.startswith(("INFO", "WARNING"))]
    return printable(in_words(lines[-1].strip()[:400])) if lines else "no word"
