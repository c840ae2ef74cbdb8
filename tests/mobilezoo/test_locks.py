"""One holder at a time, whoever waits, and no file left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from mobilezoo.locks import locked

COUNT = """
import sys, time
from pathlib import Path
from mobilezoo.locks import locked
folder = Path(sys.argv[1])
for _ in range(60):
    with locked(folder / "x.lock", wait=True):
        value = int((folder / "count").read_text())
        time.sleep(0.0005)  # long enough for another process to be let in, were the lock none
        (folder / "count").write_text(str(value + 1))
"""


def test_the_file_is_there_while_the_lock_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.lock"
    with locked(path, wait=False):
        assert path.exists()
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_lock_left_by_a_killed_process_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("")
    with locked(tmp_path / "x.lock", wait=False):
        pass
    assert not (tmp_path / "x.lock").exists()


def test_processes_that_remove_and_take_it_in_turns_lose_no_count(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "240"
    assert [p.name for p in tmp_path.iterdir()] == ["count"]
