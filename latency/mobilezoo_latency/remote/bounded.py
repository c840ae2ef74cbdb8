"""Reads the output of a foreign program, with limits of time and size."""

import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo_latency.remote.link import LinkLostError

MOST_BYTES = 32_000_000
"""Largest answer; longer ones are read in pieces (`follow.py`)."""
PIECE_BYTES = 1 << 16


class Finished(NamedTuple):
    """A program on this machine that has ended."""

    status: int
    output: bytes
    errors: bytes


def read_all(read: Callable[[float], bytes], limit_s: float) -> bytes:
    """Reads until the end.

    Args:
        read: called with the seconds left; returns the next piece, empty at the end.
        limit_s: seconds for all pieces.

    Raises:
        LinkLostError: no end in time.
        DeviceError: more than MOST_BYTES.
    """
    ends, pieces, size = time.monotonic() + limit_s, list[bytes](), 0
    while True:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise LinkLostError(f"no end of an answer within {limit_s:.0f} s")
        piece = read(left_s)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise DeviceError(f"an answer of more than {MOST_BYTES:,} bytes: what answers is no device of ours")


def run(command: Sequence[str], stdin: IO[bytes] | None, limit_s: float) -> Finished:
    """Runs a program on this machine to its end.

    Args:
        command: the program and its arguments.
        stdin: file for its standard input; None for an empty one.
        limit_s: seconds until it is killed.

    Raises:
        LinkLostError: no end in time.
        DeviceError: it prints more than MOST_BYTES.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=stdin or subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0)
    assert process.stdout is not None
    assert process.stderr is not None
    printed: dict[IO[bytes], list[bytes]] = {process.stdout: [], process.stderr: []}
    try:
        with selectors.DefaultSelector() as waiting:
            for end in printed:
                waiting.register(end, selectors.EVENT_READ)
            read_all(lambda left_s: _next(waiting, printed, left_s), limit_s)
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise LinkLostError(f"no end of {command[0]} within {limit_s:.0f} s") from None
    finally:
        process.kill()
        process.wait()
        for end in printed:
            end.close()
    return Finished(status, b"".join(printed[process.stdout]), b"".join(printed[process.stderr]))


def _next(waiting: selectors.BaseSelector, printed: dict[IO[bytes], list[bytes]], left_s: float) -> bytes:
    """Returns the next piece of either stream, also kept in `printed`; empty when both have ended."""
    while waiting.get_map():
        ready = waiting.select(left_s)
        if not ready:
            raise LinkLostError("no answer in time")
        end: IO[bytes] = ready[0][0].fileobj  # type: ignore[assignment]
        if piece := end.read(PIECE_BYTES):
            printed[end].append(piece)
            return piece
        waiting.unregister(end)
    return b""
