"""A process apart: every way in which it can end is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilezoo.workers import Worker, WorkerEndedError, bound

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
