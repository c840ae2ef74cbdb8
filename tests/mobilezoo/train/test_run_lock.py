"""Two trainers never write one folder; a dead one's lock is no obstacle, here or on another machine."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mobilezoo import locks
from mobilezoo.errors import MobilezooError
from mobilezoo.locks import locked
from mobilezoo.train.run_lock import NAME, SILENT_S, only_trainer_in

KILLED = """
import os, signal, sys, time
from pathlib import Path
from mobilezoo.locks import locked
with locked(Path(sys.argv[1]), wait=False):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(0.3)  # until the child has begun
    os.kill(os.getpid(), signal.SIGKILL)
"""


def named(folder: Path, host: str, silent_s: float = 0.0, pid: int = 7) -> Path:
    """A lock file that another process left."""
    folder.mkdir()
    path = folder / NAME
    path.write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-02 03:04:05+00:00"}))
    os.utime(path, (time.time() - silent_s,) * 2)
    return path


def test_the_second_trainer_is_told_who_writes(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    with only_trainer_in(run):
        told = rf"run' is being written by process {os.getpid()} on {platform.node()} since .*: .*name=OTHER"
        with pytest.raises(MobilezooError, match=told), only_trainer_in(run):
            pass
        assert (run / NAME).exists()
    assert not run.parent.exists(), "nothing was begun in it"


def test_the_lock_goes_and_what_was_written_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with only_trainer_in(tmp_path):
            (tmp_path / "config.yaml").write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("text", ["", "{", '{"pid": "x"}', "[]"])
def test_a_torn_lock_file_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with only_trainer_in(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_dead_trainers_lock_of_this_machine_is_no_obstacle(tmp_path: Path) -> None:
    named(tmp_path / "run", platform.node())
    with only_trainer_in(tmp_path / "run"):
        pass


def test_a_trainer_of_another_machine_counts_as_alive_while_it_gives_signs(tmp_path: Path) -> None:
    path = named(tmp_path / "run", "node17", silent_s=SILENT_S / 2)
    told = r"process 7 on node17 since 2026.*if that process is gone, wait \d+ s"
    with pytest.raises(MobilezooError, match=told), only_trainer_in(tmp_path / "run"):
        pass
    assert path.exists(), "its lock stays"
    os.utime(path, (time.time() - SILENT_S - 5,) * 2)
    with only_trainer_in(tmp_path / "run"):
        assert json.loads(path.read_text())["host"] == platform.node()


def test_a_file_system_without_locks_goes_by_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_lock", unknown)
    path = named(tmp_path / "run", platform.node())
    with pytest.raises(MobilezooError, match="process 7"), only_trainer_in(tmp_path / "run"):
        pass
    os.utime(path, (time.time() - SILENT_S - 5,) * 2)
    with only_trainer_in(tmp_path / "run"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_loader_process_that_outlives_a_killed_trainer_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / NAME
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert killed.wait(60) == -signal.SIGKILL
    assert killed.stdout is not None
    child = int(killed.stdout.readline())
    try:
        assert path.exists()
        with locked(path, wait=False):
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with (
        pytest.raises(MobilezooError, match=r"cannot write .*run.*name another place"),
        only_trainer_in(tmp_path / "run"),
    ):
        pass
