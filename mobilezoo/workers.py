"""Worker processes: a crash, a hang or a kill of the child is an error of one line in the parent.

The parent writes a JSON line per request and reads a JSON line per answer. The child is `python -m MODULE`, which calls
`serve`; output of its libraries goes to stderr, whose last line is part of the error when the process dies.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, TextIO

from mobilezoo.errors import MobilezooError, first_line, printable

PR_SET_PDEATHSIG = 1
BOUND = f"""
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
GOODBYE_S = 10.0
"""Seconds that a process may take to exit after it has closed its answers."""


_ENDS: ContextVar[float | None] = ContextVar("ends", default=None)


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Bounds all answers that the block waits for together, beside their own limits.

    Args:
        limit_s: seconds from now.
    """
    token = _ENDS.set(time.monotonic() + limit_s)
    try:
        yield
    finally:
        _ENDS.reset(token)


def left_s(limit_s: float | None) -> float | None:
    """The limit of one answer, cut to what is left of the block of `within`, if it stands in one.

    Args:
        limit_s: its own limit; None: none.
    """
    ends = _ENDS.get()
    if ends is None:
        return limit_s
    left = max(0.01, ends - time.monotonic())
    return left if limit_s is None else min(limit_s, left)


class WorkerEndedError(MobilezooError):
    """The process died or did not answer in time; the text is a predicate without its subject."""


class Worker:
    """A running child process. Use as a context manager, or call `end`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            bound(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": python_path(), **(environment or {})},
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def call(self, request: Mapping[str, Any], limit_s: float | None = None) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        Args:
            request: data that JSON can hold.
            limit_s: seconds after which the process is killed; None waits without a limit. See `within`.

        Raises:
            WorkerEndedError: no answer; the process is gone.
        """
        limit_s = left_s(limit_s)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(limit_s, stop) if limit_s is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except (BrokenPipeError, UnicodeDecodeError):
            line = ""
        finally:
            if timer is not None:
                timer.cancel()
        try:
            answer = json.loads(line)
        except ValueError:  # nothing, or half a line: it died over the request
            answer = None
        if not isinstance(answer, dict):
            raise WorkerEndedError(self._ending(limit_s if expired.is_set() else None))
        return answer

    def end(self) -> None:
        """Kills the process if it still runs, and closes its pipes; errors of broken pipes are ignored."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ending(self, expired_s: float | None) -> str:
        """Describes how the process ended, with the last line of its stderr."""
        try:
            code = self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return how_it_ended(code, expired_s) + (f": {printable(lines[-1][:200])}" if lines else "")


def how_it_ended(code: int, expired_s: float | None = None) -> str:
    """Describes the end of a process: `ended with SIGSEGV`, `ended with status 1`, `gave no answer for 60 s`.

    Args:
        code: exit status; negative for the number of a signal.
        expired_s: time limit in seconds after which it was killed; None where it ended by itself.
    """
    if expired_s is not None:
        return f"gave no answer for {expired_s:.0f} s"
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"ended with {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def python_path() -> str:
    """Returns a PYTHONPATH with which a child imports the same packages as this process."""
    own = [str(Path(entry or ".").resolve()) for entry in sys.path]
    return os.pathsep.join(dict.fromkeys([*own, *filter(None, [os.environ.get("PYTHONPATH")])]))


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], requests: TextIO, answers: TextIO) -> None:
    """Answers requests in the child until one fails, one has `"op": "close"`, or the parent closes the stream.

    Args:
        answer: computes the answer; an exception becomes the answer `{"error": ...}`.
        requests: a JSON line per request.
        answers: receives a JSON line per answer.
    """
    for line in requests:
        request = json.loads(line)
        try:
            result = answer(request)
        except MobilezooError as error:
            result = {"error": printable(str(error))}
        except Exception as error:  # a runtime may raise anything: the parent turns it into one line
            result = {"error": f"{type(error).__name__}: {first_line(error)}"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
        if "error" in result or request.get("op") == "close":
            return


def bound(command: Sequence[str]) -> list[str]:
    """Wraps a command so that Linux kills its process when the thread that started it ends (PR_SET_PDEATHSIG).

    Other systems have no such signal; there the command is returned as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", BOUND, str(os.getpid()), *command]


def end_with_parent(_: object = None) -> None:
    """Lets Linux kill the calling forked process, such as a PyTorch data loader's, when its parent ends."""
    if sys.platform == "linux":
        import ctypes
        import multiprocessing

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is None or multiprocessing.get_start_method(allow_none=True) == "forkserver":
            return  # there is no parent, or it is not the process that forked this one
        # Not `parent.is_alive()`: a sibling that was forked later holds the pipe that it looks at open.
        if os.getppid() != parent.pid:
            os._exit(1)


def main(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Entry point of a child: serves stdin, with the original stdout reserved for answers, and exits."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(answer, sys.stdin, answers)
    answers.flush()
    # Some runtimes crash while Python unloads them; all answers have been written.
    os._exit(0)
