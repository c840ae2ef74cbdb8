"""Work in a process of its own: a crash, a hang or a kill there is one line here.

The parent writes a JSON line per request and reads a JSON line per answer. The child is `python -m MODULE`, which calls
`serve`; what its libraries print goes to stderr, and the last line of that is told when the process dies.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
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
"""How long a process that has closed its answers may take to end by itself."""


class WorkerEndedError(MobilezooError):
    """The process died or did not answer in time; the text says how, without a subject."""


class Worker:
    """A running child. Use as a context manager, or call `end`."""

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

    def ask(self, request: Mapping[str, Any], limit_s: float | None = None) -> dict[str, Any]:
        """The answer to one request. Raises WorkerEndedError; the process is then gone."""
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
        """Kill the process if it still runs. A pipe that broke meanwhile says nothing new."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ending(self, expired_s: float | None) -> str:
        """How it ended, and the last thing that it said."""
        try:
            code = self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return how_it_ended(code, expired_s) + (f": {printable(said[-1][:200])}" if said else "")


def how_it_ended(code: int, expired_s: float | None = None) -> str:
    """`ended with SIGSEGV`, `ended with status 1`, or that it was stopped after so many seconds."""
    if expired_s is not None:
        return f"gave no answer for {expired_s:.0f} s"
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"ended with {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def python_path() -> str:
    """Lets a child find the very packages that this process imports."""
    own = [str(Path(entry or ".").resolve()) for entry in sys.path]
    return os.pathsep.join(dict.fromkeys([*own, *filter(None, [os.environ.get("PYTHONPATH")])]))


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], requests: TextIO, answers: TextIO) -> None:
    """The child: answer requests until one ends in `{"error": ...}`, one says "close", or the parent is gone."""
    for line in requests:
        request = json.loads(line)
        try:
            said = answer(request)
        except MobilezooError as error:
            said = {"error": printable(str(error))}
        except Exception as error:  # a runtime may raise anything: the parent turns it into one line
            said = {"error": f"{type(error).__name__}: {first_line(error)}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()
        if "error" in said or request.get("op") == "close":
            return


def bound(command: Sequence[str]) -> list[str]:
    """The command in a form that Linux kills when the thread that starts it is gone, whatever it is busy with.

    A process of another program has nobody else to tell it; elsewhere it is left as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", BOUND, str(os.getpid()), *command]


def end_with_parent(_: object = None) -> None:
    """The same for the forked process that calls this, such as PyTorch's for loading data."""
    if sys.platform == "linux":
        import ctypes
        import multiprocessing

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)


def main(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Keep the original stdout for answers alone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(answer, sys.stdin, answers)
    answers.flush()
    # Some runtimes crash while Python unloads them; everything that counts has been said.
    os._exit(0)
