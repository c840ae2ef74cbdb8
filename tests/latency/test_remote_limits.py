"""What a device or its server may cost us: time, memory, a traceback. And which values a YAML may hold."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo_latency import load_device
from mobilezoo_latency.contract import name_of
from mobilezoo_latency.remote import adb, bounded
from mobilezoo_latency.remote import follow as following
from mobilezoo_latency.remote.adb import AdbConfig, AdbDevice, AdbLink
from mobilezoo_latency.remote.bounded import run
from mobilezoo_latency.remote.follow import follow
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError, PatientLink
from mobilezoo_latency.remote.parsing import time_ms
from mobilezoo_latency.remote.runners import RUNNERS, RunnerConfig
from mobilezoo_latency.remote.ssh import SshConfig, SshLink


class LocalLink(Link):
    """This machine's shell, in a folder."""

    name = "stand-in"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(["sh", "-c", command], cwd=self.folder, stdout=pipe, stderr=both, timeout=limit_s)
        return Answer(done.returncode, done.stdout.decode(errors="replace"))

    def push(self, local: Path, remote: str) -> None:
        raise NotImplementedError


def followed(folder: Path, program: str) -> str:
    (folder / "put").mkdir(exist_ok=True)
    return follow(LocalLink(folder), program, "put", 0.0, lambda s: time.sleep(0.02))


def test_a_line_without_an_end_is_an_error_and_its_program_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "MAX_LINE", 1000)
    with pytest.raises(DeviceError, match="a line of more than 1000 characters"):
        followed(tmp_path, "echo $$ > pid; while :; do printf xxxxxxxxxxxxxxxx; done")
    for _ in range(500):
        if not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists():
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the program still runs")
    assert not list(tmp_path.glob("put/*"))


def test_long_output_comes_in_pieces_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "PIECE_BYTES", 500)
    expected = "".join(f"sample_ms {i}.5 \u00b5\n" for i in range(200))
    (tmp_path / "said.txt").write_text(expected + "no end of line", encoding="utf-8")
    assert followed(tmp_path, "cat said.txt") == expected + "no end of line"


def test_a_runner_cannot_fill_the_devices_storage(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "BLOCKS", 16)
    with pytest.raises(DeviceError, match=r"status \d+"):
        followed(tmp_path, f"{sys.executable} -c \"print('a line of text\\n' * 100000)\"")
    assert not list(tmp_path.glob("put/*"))


def test_binary_output_is_no_time(tmp_path):
    said = followed(tmp_path, "head -c 3000 /dev/zero; printf '\\377\\nsample_ms 1\\n'")
    assert said.endswith("\nsample_ms 1\n")


@pytest.mark.parametrize("value", ["1_0", "１２", "٣", "0x1", "1e", ".", "1.5.2", "1,5", "+1", "-0.0"])
def test_only_plain_ascii_numbers_are_times(value):
    with pytest.raises(DeviceError, match="is no time of a run"):
        time_ms(value, f"sample_ms {value}")
    assert time_ms(" 1.5e1 ", "") == 15.0


def test_a_log_that_repeats_the_line_we_look_for_is_read_in_time():
    runner = RUNNERS["benchmark_model"](RunnerConfig.parse({"kind": "benchmark_model", "path": "x"}, "test"))
    text = "INFO: count=5 \n" + "Inference timings in us: Init: 1, First inference: 1, " * 20_000
    with pytest.raises(DeviceError, match="printed no 'Inference timings'"):
        runner._parse(text)  # type: ignore[attr-defined]


def test_a_call_that_hangs_is_part_of_the_wait_for_a_lost_connection(monkeypatch):
    class Hanging(LocalLink):
        calls = 0

        def shell(self, command: str, limit_s: float = 30.0) -> Answer:
            self.calls += 1
            clock[0] += limit_s
            raise LinkLostError("no answer")

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    link = Hanging(Path())
    with pytest.raises(DeviceError, match="connection lost for 12"):
        PatientLink(link, 100.0, lambda s: None).shell("true")
    assert link.calls == 4


def test_a_name_is_cut_and_printable():
    assert name_of(" Pixel\t4 \x1b[2J\u202e\n") == "Pixel 4 \\x1b[2J\\u202e"
    assert len(name_of("x" * 10_000_000)) == 120


# ---- programs that connect


def test_a_program_that_talks_or_waits_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(bounded, "MOST_BYTES", 100_000)
    with pytest.raises(DeviceError, match="more than 100,000 bytes"):
        run(["sh", "-c", "yes"], None, 60.0)
    with pytest.raises(DeviceError, match="more than 100,000 bytes"):
        run(["sh", "-c", "yes >&2"], None, 60.0)
    with pytest.raises(LinkLostError):
        run(["sh", "-c", "echo begun; sleep 60"], None, 0.2)
    assert run(["sh", "-c", "cat; echo out; echo err >&2; exit 3"], None, 60.0) == (3, b"out\n", b"err\n")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A program in the place of ssh that runs what `ssh.say(TEXT)` gave it."""

    def say(text: str) -> SshLink:
        (tmp_path / "ssh").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "ssh").chmod(0o755)
        return SshLink(SshConfig(type="ssh", host="board"))

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return say


def test_a_far_shell_that_greets_without_end_is_one_line(ssh, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_BYTES", 100_000)
    with pytest.raises(DeviceError, match="no device of ours"):
        ssh("yes welcome").shell("true")


def test_a_refusal_of_ssh_is_short_and_printable(ssh):
    link = ssh("printf 'Permission denied \\033[2J' >&2; head -c 9000 /dev/zero | tr '\\0' x >&2; exit 255")
    with pytest.raises(DeviceError) as error:
        link.shell("true")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


# ---- an adb server that is none


@pytest.fixture
def answering(monkeypatch) -> Iterator[object]:
    """A server on loopback that gives each connection the bytes of `told`, then holds it or hangs up."""
    pytest.importorskip("adbutils")
    monkeypatch.setattr(adb, "STEP_S", 0.3)
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    class Server:
        told, hold, port = b"", False, listener.getsockname()[1]

        def serve(self) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(self.told)
                    held.append(connection)
                    if not self.hold:
                        connection.shutdown(socket.SHUT_WR)

        def device(self) -> AdbDevice:
            return AdbDevice(AdbConfig(type="adb", port=self.port))

    server = Server()
    threading.Thread(target=server.serve, daemon=True).start()
    yield server
    listener.close()
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    "told", [b"", b"OKAY", b"OKAYzzzz", b"OKAYffff", b"HTTP/1.1 400 Bad", b"FAIL0003\x1b[2", b"\xff" * 99]
)
@pytest.mark.parametrize("hold", [False, True])
def test_a_server_that_is_no_adb_server_is_one_line(answering, told, hold):
    answering.told, answering.hold = told, hold
    with pytest.raises(DeviceError) as error:
        answering.device().open()
    assert "adb start-server" in str(error.value) or "no Android phone" in str(error.value)
    assert str(error.value).isprintable()


def link_to(answering: object) -> AdbLink:
    from adbutils import AdbClient

    client = AdbClient(host="127.0.0.1", port=answering.port, socket_timeout=0.3)  # type: ignore[attr-defined]
    return AdbLink(client.device(serial="PHONE1"), "PHONE1")


@pytest.mark.parametrize("told", [b"", b"OKAY0029", b"OKAY0029OKAY", b"OKAY0029OKAYhello", b"FAIL"])
@pytest.mark.parametrize("hold", [False, True])
def test_a_phone_that_is_pulled_out_is_a_lost_link_and_no_traceback(answering, told, hold, tmp_path):
    answering.told, answering.hold = told, hold
    (tmp_path / "model").write_bytes(b"x" * 100_000)
    with pytest.raises(LinkLostError):
        link_to(answering).shell("true", limit_s=0.5)
    with pytest.raises((LinkLostError, DeviceError)):
        link_to(answering).push(tmp_path / "model", "/data/local/tmp/x")


# ---- values of a device's YAML


@pytest.mark.parametrize(
    ("device", "key", "values"),
    [
        ("cortex_a76", "qemu_cpu", ["../../x", "-x", "a b", "a\nb", "", "$(x)", "/x"]),
        ("cortex_a76", "mca_cpu", ["../x", "a;b", "-x", "a/b"]),
        ("cortex_a76", "mca_features", ["+a -o x", "+a\n", "$(x)"]),
        ("cortex_a76", "cpu_features", ["fp\nCPU part: 0x1", "a;b"]),
        ("cortex_a76", "cpu_part", ["0xd0b\n", "../x", "0xD0B"]),
        ("cortex_a76", "caches", [[[0, 4]], [[-1, 4]], [[64, 10**9]]]),
        ("android", "serial", ["-s x", "a b", "a\nb", "a;b", "$(x)", "x" * 101]),
        ("android", "server", ["-x", "a b", "", "a/b", "a\n"]),
        ("android", "port", [0, -1, 65536, "5037"]),
        ("android", "launcher", ["a\nb", "x" * 501, "qemu 'x", " ", "\\"]),
        ("browser", "open", ["a\nb", 'firefox "x', "''" + "'", "  "]),
        ("ssh", "host", ["-oProxyCommand=x", "-x", "me@$(x)", "a b", "a;b", "a\n", "@a", "me@a-"]),
        ("ssh", "port", [0, 65536, "22 -x"]),
        ("ssh", "options", [["User=a\nb"], [""], ["x" * 501]]),
        ("iphone", "team", ["-x", "abc", "A B", "A\n"]),
        ("iphone", "device_name", ["a\nb", "\x1b[2J", "x" * 101]),
        ("browser", "phone", ["a\nb", "\x1b[2J", "x" * 101, "a\u2028b"]),
        ("host", "description", ["\x1b[2J", "a\nb", "x" * 501]),
    ],
)
def test_values_that_could_be_options_paths_or_commands_are_refused(device, key, values):
    for value in values:
        with pytest.raises(ConfigError, match=key):
            load_device(device, (f"{key}={json.dumps(value)}",))


def test_values_that_people_use_are_taken():
    used = {"serial": "192.168.1.7:5555", "server": "adb-host.local", "folder": "/data/local/tmp/x"}
    assert load_device("android", tuple(f"{key}={value}" for key, value in used.items()))
    for host in ("pi@192.168.1.7", "board", "me@fe80::1", "a_b.local"):
        assert load_device("ssh", (f"host={host!r}",))
    assert load_device("cortex_a76", ("qemu_cpu=max,pauth=off",))
    assert load_device("browser", ("phone=Bob’s “Pixel 9”",))
