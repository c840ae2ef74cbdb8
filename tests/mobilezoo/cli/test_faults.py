"""A full disk, a closed pipe, an ASCII terminal, Ctrl-C: one line and the right exit code, whatever the verb."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.cli import device as devices
from mobilezoo.cli.main import main

COMMAND = [sys.executable, "-m", "mobilezoo"]
SHORT, LONG = ("device", "list"), ("list", "--json")


def failing(error: BaseException) -> Any:
    def rows() -> list[dict[str, Any]]:
        raise error

    return rows


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: run on Linux")
@pytest.mark.parametrize("args", [SHORT, LONG, ("--help",)])
def test_standard_output_on_a_full_device_is_one_line(args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *args], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == f"error: standard output: {os.strerror(errno.ENOSPC)}\n"
    assert done.returncode == 2


@pytest.mark.parametrize("args", [SHORT, LONG])
def test_a_reader_that_goes_away_ends_a_command_in_silence(args: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *args], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.stderr, done.returncode) == ("", 141)


def test_what_an_ascii_terminal_lacks_is_written_as_an_escape() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*COMMAND, "list", "mnasnet_b1"], env={**os.environ, **plain}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"mnasnet_b1" in done.stdout
    done = subprocess.run([*COMMAND, "list", "né"], env={**os.environ, **plain}, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"unknown model" in done.stderr


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "--out"), (errno.EACCES, "--out")]
)
def test_a_file_that_cannot_be_written_is_one_line(
    number: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "device_rows", failing(OSError(number, os.strerror(number), "runs/a/x.json")))
    with pytest.raises(SystemExit) as done:
        main(["device", "list"])
    err = capsys.readouterr().err
    assert done.value.code == 2
    assert err.startswith(f"error: 'runs/a/x.json': {os.strerror(number)}: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "bad"), RuntimeError("a fault of ours")])
def test_a_fault_of_ours_is_not_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    monkeypatch.setattr(devices, "device_rows", failing(error))
    with pytest.raises(type(error)):
        main(["device", "list"])
    assert sys.stdout is before


def test_ctrl_c_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "device_rows", failing(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as done:
        main(["device", "list"])
    assert done.value.code == 130
    assert capsys.readouterr().err == "interrupted: what was finished is kept; run the same command again\n"
