"""A process apart: every way in which it can end is one line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobilezoo.workers import Worker, WorkerEndedError, bound, python_path

ECHO = """
from mobilezoo import workers
def answer(request):
    print("a runtime's chatter")
    if request["op"] == "fail":
        raise ValueError("first line\\nsecond line")
    return {"said": request["op"]}
workers.main(answer)
"""


def worker(program: str) -> Worker:
    return Worker([sys.executable, "-c", program])


def test_answers_come_without_what_libraries_print():
    with worker(ECHO) as child:
        assert child.call({"op": "µ"}) == {"said": "µ"}
        assert child.call({"op": "fail"}) == {"error": "ValueError: first line"}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import os; os.abort()", "ended with SIGABRT"),
        ("import sys; print('no room\\n', file=sys.stderr); sys.exit(3)", "ended with status 3: no room"),
        ("print('{\"half\": ', end='', flush=True)", "ended with status 0"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n')", "ended with status 0"),
        ("print('[1]')", "ended with status 0"),
    ],
)
def test_a_death_is_named_and_nothing_else_is_raised_while_closing(program, expected):
    child = worker(program)
    child._process.wait()  # dead before it is asked: the request meets a broken pipe
    with pytest.raises(WorkerEndedError, match=expected), child:
        child.call({"op": "x" * 100_000})


def test_a_hang_is_ended_and_named():
    with pytest.raises(WorkerEndedError, match="no answer for 1 s"), worker("import time; time.sleep(60)") as child:
        child.call({"op": "x"}, limit_s=1.0)


def test_a_worker_that_died_between_requests_is_closed_in_silence():
    with worker(ECHO) as child:
        assert child.call({"op": "a"}) == {"said": "a"}
        child._process.kill()
        child._process.wait()


PARENT = """
import sys
import time
from mobilezoo.workers import Worker
BUSY = "import os; print(os.getpid(), flush=True)\\nwhile 1: 1"
child = Worker([sys.executable, "-c", BUSY])
print(child._process.stdout.readline(), flush=True)
input()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_busy_process_ends_with_the_one_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    assert child.exists()
    parent.kill()
    parent.communicate()
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":  # nobody may be there to bury it
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_process_whose_parent_is_gone_before_it_begins_does_nothing(tmp_path):
    command = bound([sys.executable, "-c", f"open({str(tmp_path / 'made')!r}, 'w')"])
    command[command.index(str(os.getpid()))] = "1"
    subprocess.run(command, check=True)
    assert not list(tmp_path.iterdir())


ORPHANS = """
import multiprocessing, os, signal, sys, time
from mobilezoo.workers import end_with_parent

def late(parent):
    while os.getppid() == parent:
        time.sleep(0.01)
    end_with_parent()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=late, args=(os.getpid(),)) for _ in range(3)]
    for process in started:
        process.start()
    print(*(process.pid for process in started), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_children_of_a_parent_that_died_before_they_looked_end_too(tmp_path: Path) -> None:
    """Forked siblings hold each other's pipes to the parent open, so that it seems alive to all but the last."""
    (tmp_path / "orphans.py").write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, str(tmp_path / "orphans.py")], stdout=out, env=environment, check=False)
    children = [Path("/proc", pid) for pid in (tmp_path / "out").read_text().split()]
    assert len(children) == 3
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: Path) -> bool:
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
