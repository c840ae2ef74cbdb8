"""Pipes, sockets, devices and loops of links where a file is expected: one line, and nothing waits for their end."""

import os
import socket
from pathlib import Path

import pytest

from mobilezoo.errors import ConfigError, MobilezooError, existing_path
from mobilezoo.files import finish, tidy
from mobilezoo.reading import read_json
from mobilezoo.workflows.convert import convert_checkpoint
from mobilezoo.workflows.model_options import ModelOptions


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    if request.param == "pipe":
        os.mkfifo("x.tflite")
    elif request.param == "device":
        Path("x.tflite").symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.tflite")
    return tmp_path / "x.tflite"


def test_a_file_that_may_never_end_is_refused(special: Path) -> None:
    with pytest.raises(MobilezooError, match=r"model '.*x\.tflite' is a pipe, socket or device: name a file"):
        existing_path(special, "model")
    with pytest.raises(ConfigError, match=r"x\.tflite: not a regular file"):
        read_json(special)


def test_a_loop_of_links_is_no_file_and_no_folder(tmp_path: Path) -> None:
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop.name)
    tidy(loop)
    finish(loop / "x.tflite")
    with pytest.raises(MobilezooError, match="file not found"):
        existing_path(loop, "file")
    with pytest.raises(ConfigError, match="another one than what is converted"):
        convert_checkpoint("shvit_s1", ModelOptions(checkpoint=loop), loop)
