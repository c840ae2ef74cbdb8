"""Remote devices. The logic runs against a scripted shell; ssh and adb run end to end against servers on loopback,
where the "arm64 device" is this machine with QEMU as the launcher."""

import contextlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mobilezoo.artifacts import save_record
from mobilezoo.errors import ConfigError, DeviceError, MobilezooError
from mobilezoo.latency_report import Protocol
from mobilezoo.trust import allow_commands
from mobilezoo_latency import Store, load_artifact, load_device, profile
from mobilezoo_latency.emulator.layout import find_emulator, home
from mobilezoo_latency.emulator.probe import verify
from mobilezoo_latency.remote import follow as following
from mobilezoo_latency.remote.device import RemoteDevice
from mobilezoo_latency.remote.follow import follow
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError
from mobilezoo_latency.remote.options import harmful_options
from mobilezoo_latency.remote.parsing import exit_status, parse_times
from mobilezoo_latency.remote.runners import RUNNERS, RunnerConfig
from mobilezoo_latency.remote.sending import send
from mobilezoo_latency.remote.state import CoreClass, parse_classes, parse_state, pick_cores

QUICK = Protocol(name="quick", warmup_runs=2, warmup_s=0.0, min_runs=5, min_s=0.0, max_repeats=1)
STAT = "cpu  100 0 100 700 100 0 0 0 0 0\ntemp 41500\ntemp \ntemp -127000\nfreq 1800000\nfreq 2841600\n"


def test_state_is_read_from_what_the_kernel_says():
    state = parse_state(STAT)
    assert (state.busy, state.total, state.cores) == (200, 1000, 2)
    assert (state.temperature_c, state.frequency_mhz) == (41.5, 2841.6)
    later = parse_state(STAT.replace("100 0 100 700", "180 0 100 720"))
    assert later.other_load(state, threads=1) == pytest.approx(0.8 - 0.5)
    assert parse_state("").other_load(state, threads=1) is None


def test_core_classes_are_groups_of_equal_clock():
    text = "".join(f"cpu{i} {1785600 if i < 4 else 2419200 if i < 7 else 2841600}\n" for i in range(8))
    classes = parse_classes(text)
    assert classes == [CoreClass(1785600, (0, 1, 2, 3)), CoreClass(2419200, (4, 5, 6)), CoreClass(2841600, (7,))]
    assert pick_cores(classes, "mid", 1, "x").cpus == (4, 5, 6)
    assert pick_cores(classes, "little", 4, "x").cpus == (0, 1, 2, 3)
    with pytest.raises(DeviceError, match=r"1 big core\(s\), and 2 threads"):
        pick_cores(classes, "big", 2, "x")
    with pytest.raises(DeviceError, match="cannot be chosen"):
        pick_cores(classes[:1], "mid", 1, "x")
    with pytest.raises(DeviceError, match="no core classes"):
        pick_cores(parse_classes("cpu0 \ncpu1 \n"), "big", 1, "x")


@pytest.mark.parametrize(("line", "status"), [("exit 0", 0), ("exit 13\r", 13), ("", None), ("exit x", None)])
def test_a_status_is_a_number_after_exit(line, status):
    assert exit_status(line) == status


def test_samples_are_read_from_the_runners_lines():
    job = parse_times(
        "load_ms 5\nfirst_run_ms 3\nwarmup_ms 2\nsample_ms 1.5\nsample_ms 1.25\noutput 1 2\ndone 1\nexit 0\n"
    )
    assert (job.load_ms, job.first_run_ms, job.warmup_ms, job.samples_ms) == (5, 3, [2], [1.5, 1.25])
    with pytest.raises(DeviceError, match="without samples"):
        parse_times("load_ms 5\n")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "x", "", "1e999", "1 2", "9" * 5000, "\x1b[2J"])
def test_a_sample_that_is_no_time_is_refused_in_one_printable_line(value):
    with pytest.raises(DeviceError, match="is no time of a run") as error:
        parse_times(f"load_ms 5\nfirst_run_ms 3\nsample_ms {value}\nsample_ms 1\n")
    assert str(error.value).isprintable()


def test_lines_end_at_line_feeds_only():
    said = "load_ms 5\nfirst_run_ms 3\nnote a\u2028sample_ms 9\x85sample_ms 8\x0csample_ms 7\nsample_ms 1\n"
    assert parse_times(said).samples_ms == [1]


class LocalLink(Link):
    """This machine's shell, in a folder; loses its connection when told to."""

    name = "stand-in"

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.lose = folder, 0, set()

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        self.calls += 1
        if self.calls in self.lose:
            raise LinkLostError("cable pulled")
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(["sh", "-c", command], cwd=self.folder, stdout=pipe, stderr=both, timeout=limit_s)
        return Answer(done.returncode, done.stdout.decode(errors="replace"))

    def push(self, local: Path, remote: str) -> None:
        self.calls += 1
        if self.calls in self.lose:
            raise LinkLostError("cable pulled")
        shutil.copy(local, self.folder / remote)


def followed(tmp_path: Path, program: str, link: Link | None = None) -> str:
    (tmp_path / "put").mkdir(exist_ok=True)
    return follow(link or LocalLink(tmp_path), program, "put", 0.0, lambda s: time.sleep(0.02))


def test_output_is_read_once_whatever_bytes_stand_in_it(tmp_path):
    lines = [f"sample_ms {i}.5" for i in range(1, 9)]
    noise = [
        "printf 'took 5 \\302\\265s\\n'",
        "printf '\\377\\376 \\342\\200\\250 x\\n'",
        "printf '\\302'; sleep 0.05; printf '\\265\\n'",
    ]
    program = "; ".join(f"echo {line}; {noise[i % 3]}; sleep 0.03" for i, line in enumerate(lines))
    text = followed(tmp_path, program)
    assert [line for line in text.split("\n") if line.startswith("sample_ms")] == lines
    assert not list(tmp_path.glob("put/run-*"))


def test_a_last_line_without_an_end_and_a_printed_exit_are_output(tmp_path):
    assert followed(tmp_path, "echo exit 3; sleep 0.1; printf 'sample_ms 1'") == "exit 3\nsample_ms 1"


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path):
    assert followed(tmp_path, "printf 'sample_ms 1'; sleep 0.15; echo 2.5") == "sample_ms 12.5\n"


def test_a_lost_answer_of_a_real_shell_costs_nothing(tmp_path):
    from mobilezoo_latency.remote.link import PatientLink

    link = LocalLink(tmp_path)
    link.lose = set(range(2, 100, 2))
    patient = PatientLink(link, 5.0, lambda s: None)
    program = "for i in 1 2 3 4 5 6; do echo sample_ms $i; sleep 0.03; done"
    assert followed(tmp_path, program, patient) == "".join(f"sample_ms {i}\n" for i in range(1, 7))


def test_a_run_that_never_ends_or_never_stops_printing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE_S", 0.2)
    with pytest.raises(DeviceError, match="no end of the run"):
        followed(tmp_path, "sleep 2")
    monkeypatch.setattr(following, "PATIENCE_S", 20.0)
    monkeypatch.setattr(following, "MAX_CHARACTERS", 1000)
    with pytest.raises(DeviceError, match="printed more than 1000"):
        followed(tmp_path, "seq 1 10000; sleep 1")


@pytest.mark.parametrize(
    "name", ["lib$(touch owned).so", "lib with space.so", "lib';touch owned;'.so", "lib`touch owned`.so", "-rf"]
)
def test_a_files_name_is_no_command_on_the_device(tmp_path, name):
    local = tmp_path / "here" / name
    local.parent.mkdir()
    local.write_text("library")
    link = LocalLink(tmp_path)
    assert send(link, local, name, "put/a folder") == f"put/a folder/{name}"
    assert (tmp_path / "put" / "a folder" / name).read_text() == "library"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [name, name]


@pytest.mark.parametrize("folder", ["~/x", "/tmp/$(x)", "a b", "-p", "x\n", ""])
def test_a_folder_on_the_device_is_a_plain_path(folder):
    for config in ("ssh", "android"):
        with pytest.raises(ConfigError, match="folder"):
            load_device(config, (f"folder={folder!r}",))


def test_ssh_options_that_could_run_a_command_are_known():
    options = (
        "ProxyCommand=x|proxycommand x| ProxyCommand = x|LocalCommand=x|PermitLocalCommand=yes|Match exec x|Include x"
    )
    options += "|KnownHostsCommand=x|\"ProxyCommand\" x|'ProxyCommand'=x|PKCS11Provider=x|SecurityKeyProvider=x"
    options += (
        "|RemoteCommand=x|ProxyJump=-oProxyCommand=x|ProxyJump=$(x)|ProxyJump=a;x|XAuthLocation=x|LocalForward=1 a:2"
    )
    options += "|RemoteForward=1 a:2|ForwardAgent=yes|SetEnv=A=b|Host *|Unheard=of|=x|ProxyCommand|\tProxyCommand=x"
    options += (
        "|UserKnownHostsFile=~/.ssh/authorized_keys|userknownhostsfile /root/x|HostName=$(x)|User=`x`|HostName=-x"
    )
    options += (
        "|HostKeyAlias=a;x|ControlPath=x|ControlMaster=yes|SendEnv=*|IdentityAgent=x|EscapeChar=x|Tag=x|-F x|-oPort=2"
    )
    for option in options.split("|"):
        assert harmful_options((option,)) == [option]
    harmless = (
        "IdentityFile=~/.ssh/board",
        "StrictHostKeyChecking no",
        "User = me",
        "ProxyJump=me@gate:22,b",
        "UserKnownHostsFile=/dev/null",
        "HostKeyAlgorithms=+ssh-rsa",
        "Ciphers=^aes128-ctr,aes256-ctr",
        "port 22",
    )
    assert harmful_options(harmless) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "type: ssh\nhost: 127.0.0.1\noptions: ['ProxyCommand=touch owned']\n",
            "ssh option 'ProxyCommand=touch owned'",
        ),
        ("type: ssh\nhost: 127.0.0.1\nlauncher: touch owned\n", "launcher 'touch owned'"),
        ("type: adb\nlauncher: touch owned\n", "launcher 'touch owned'"),
        ("type: browser\nopen: touch owned\n", "open 'touch owned'"),
    ],
)
def test_a_config_runs_a_command_only_where_the_user_allows_it(tmp_path, text, named):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="--allow-commands") as error:
        load_device(tmp_path / "mine.yaml")
    assert named in str(error.value)
    allow_commands()
    try:
        load_device(tmp_path / "mine.yaml")
    finally:
        allow_commands(False)


def test_what_the_user_types_is_no_configs_command(tmp_path):
    (tmp_path / "mine.yaml").write_text("type: browser\nreach: localhost\n")
    assert load_device(tmp_path / "mine.yaml", ("open=firefox",)).config.open == "firefox"  # type: ignore[attr-defined]
    load_device("chromium")  # a shipped one


@pytest.mark.parametrize("option", ["User=a\nProxyCommand=x", "User=a\x00"])
def test_an_ssh_option_is_one_line(tmp_path, option):
    (tmp_path / "mine.yaml").write_text(f"type: ssh\noptions: [{json.dumps(option)}]\n")
    with pytest.raises(ConfigError, match="options"):
        load_device(tmp_path / "mine.yaml")


@pytest.mark.parametrize("kind", ["[]", "{}", "5", "true", "'lib$(x)'", "null"])
def test_a_device_type_that_is_none_is_one_line(tmp_path, kind):
    (tmp_path / "mine.yaml").write_text(f"type: {kind}\n")
    with pytest.raises(MobilezooError, match="type"):
        load_device(tmp_path / "mine.yaml")


def test_the_host_is_asked_for_before_the_emulator(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEZOO_EMULATOR", str(tmp_path / "nothing"))
    with pytest.raises(DeviceError, match="has no host"):
        load_device("ssh").check()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "benchmark_model",
            "INFO: count=5 x\nInference timings in us: Init: 1, First inference: 2, x Inference (avg): nan",
        ),
        (
            "benchmark_model",
            "INFO: count=5 x\nInference timings in us: Init: 1, First inference: -2, x Inference (avg): 3",
        ),
        ("onnxruntime_perf_test", "".join(f"iteration:{i},time_cost:-1\n" for i in range(20))),
        ("executor_runner", "".join(f"Iteration {i} of 20: 1.2.3 ms\n" for i in range(20))),
        ("executor_runner", "".join(f"Iteration {i} of 20: inf ms\n" for i in range(20))),
    ],
)
def test_a_vendors_runner_that_prints_no_time_is_one_line(kind, text):
    runner = RUNNERS[kind](RunnerConfig.parse({"kind": kind, "path": "x"}, "test"))
    with pytest.raises(DeviceError, match="is no time of a run"):
        runner.slice(lambda arguments: text, "model", QUICK, 5, 0.0)


def test_odd_answers_of_a_device_are_no_traceback():
    rng = random.Random(0)
    pieces = [
        "cpu ",
        "cpu0 ",
        "temp ",
        "freq ",
        "9" * 5000,
        "-1",
        "1.5.2",
        "²",
        "nan",
        "\x00",
        "\u2028",
        "\n",
        " ",
        "1e9",
        "1800000",
    ]
    for _ in range(300):
        text = "".join(rng.choices(pieces, k=20))
        parse_state(text)
        parse_classes(text)
        with contextlib.suppress(DeviceError):
            parse_times("load_ms 1\nfirst_run_ms 1\nsample_ms " + text)


@pytest.fixture(scope="module")
def launcher() -> str:
    if not (home() / "installed.json").is_file():
        pytest.skip("no arm64 runner: run `mobilezoo device setup emulator`")
    emulator = find_emulator()
    verify(emulator)  # makes the files that describe the core: the runtime crashes on this machine's
    guest = emulator.root / "cores" / "cortex-a76-0xd0b"
    libraries = emulator.environment()["LD_LIBRARY_PATH"]
    qemu = f"{emulator.tool('qemu-aarch64')} -cpu cortex-a76 -L {guest} -E LD_LIBRARY_PATH="
    return f"env LD_LIBRARY_PATH={libraries} {qemu}"


def stand_in(launcher: str, link: Link, **changes: object) -> RemoteDevice:
    """The ssh device class over any link."""
    device = load_device("ssh")
    assert isinstance(device, RemoteDevice)
    device.config = device.config.model_copy(update={"launcher": launcher, "folder": "put", **changes})
    device.open = lambda: link  # type: ignore[method-assign]
    device.sleep = lambda s: time.sleep(min(s, 0.05))
    return device


@pytest.mark.slow
def test_a_pulled_cable_loses_no_sample(launcher, tiny_tflite, tmp_path):
    link = LocalLink(tmp_path)
    device = stand_in(launcher, link)
    artifact = load_artifact(tiny_tflite)
    device.measure(artifact, QUICK)  # everything is on the device now
    calls, link.calls = link.calls, 0
    link.lose = set(range(3, 3 * calls, 3))
    report = device.measure(artifact, QUICK)
    assert link.calls > 3
    assert len(report.samples_ms) == 5
    assert report.device.kind == "board"
    assert report.processes[0].warmup_runs == 2
    assert not list(tmp_path.glob("put/run-*"))


def test_a_cable_that_stays_away_is_one_line(launcher, tiny_tflite, tmp_path):
    link = LocalLink(tmp_path)
    device = stand_in(launcher, link, patience_s=0.2)
    info = device.describe()
    device.describe = lambda: info  # type: ignore[method-assign]
    link.lose = set(range(1, 10_000))
    with pytest.raises(DeviceError, match="connection lost"):
        device.measure(load_artifact(tiny_tflite), QUICK)


def test_a_file_cut_short_by_full_storage_is_named_and_removed(launcher, tiny_tflite, tmp_path):
    class Full(LocalLink):
        def push(self, local: Path, remote: str) -> None:
            (self.folder / remote).write_bytes(local.read_bytes()[:100])

    device = stand_in(launcher, Full(tmp_path))
    with pytest.raises(DeviceError, match="storage full"):
        device.measure(load_artifact(tiny_tflite), QUICK)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_runner_that_fails_is_named_with_its_last_words(launcher, tiny_tflite, tmp_path):
    device = stand_in("sh -c 'echo out of memory >&2; exit 9' --", LocalLink(tmp_path))
    with pytest.raises(DeviceError, match="status 9: out of memory"):
        device.measure(load_artifact(tiny_tflite), QUICK)


@pytest.mark.slow
def test_quantized_files_of_others_are_timed_and_said_to_be_unproven(launcher, shared, tmp_path):
    device = stand_in(launcher, LocalLink(tmp_path))
    file = shared / "foreign" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite"
    report = profile(file, device, QUICK, store=Store(tmp_path / "latency.db"))
    assert len(report.samples_ms) == 5
    assert (report.device.kind, report.unproven) == ("board", "not proven here")


def test_a_file_that_the_devices_runtime_refuses_is_one_line(launcher, shared, tmp_path):
    device = stand_in(launcher, LocalLink(tmp_path))
    with pytest.raises(DeviceError, match=r"does not load this file .*: --device host may time it") as error:
        device.measure(load_artifact(shared / "foreign" / "tflite" / "coral_keras_lstm_mnist_ptq.tflite"), QUICK)
    assert "\n" not in str(error.value)


def test_a_machine_that_is_not_arm64_is_refused(launcher, tmp_path):
    device = stand_in("", LocalLink(tmp_path))
    with pytest.raises(DeviceError, match="not arm64"):
        device.check()


def test_a_board_without_a_host_tells_what_to_write():
    with pytest.raises(DeviceError, match="host: USER@HOST"):
        load_device("ssh").open()  # type: ignore[attr-defined]


# ---- ssh, end to end -------------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(tmp_path):
    """An sshd on loopback with keys of its own; yields the options that reach it."""
    program = os.environ.get("MOBILEZOO_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh server on this machine: run `apt-get install openssh-server`")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "authorized").write_text((tmp_path / "user_key.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {tmp_path}/host_key",
        "UsePAM no",
        "StrictModes no",
    ]
    settings += [f"AuthorizedKeysFile {tmp_path}/authorized", f"PidFile {tmp_path}/pid", "PasswordAuthentication no"]
    (tmp_path / "config").write_text("\n".join([*settings, f"SetEnv HOME={tmp_path}", ""]))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([program, "-D", "-e", "-f", str(tmp_path / "config")], stderr=subprocess.PIPE)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    if server.poll() is not None:
        pytest.skip(f"sshd does not start here: {server.stderr.read().decode()[-200:]}")
    options = (f"IdentityFile={tmp_path}/user_key", "StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path}/known")
    yield port, options
    server.terminate()
    server.wait()


def ssh_device(sshd, launcher: str, tmp_path: Path, **changes: object) -> RemoteDevice:
    port, options = sshd
    device = load_device("ssh")
    assert isinstance(device, RemoteDevice)
    update = {"host": "127.0.0.1", "port": port, "options": options, "launcher": launcher}
    device.config = device.config.model_copy(update={**update, "folder": f"{tmp_path}/board", **changes})
    device.sleep = lambda s: time.sleep(min(s, 0.1))
    return device


@pytest.mark.slow
def test_a_board_is_measured_over_a_real_ssh_connection(sshd, launcher, tiny_tflite, tmp_path):
    report = profile(tiny_tflite, ssh_device(sshd, launcher, tmp_path), QUICK, store=Store(tmp_path / "latency.db"))
    assert report.device.kind == "board"
    assert report.device.runtime.startswith("LiteRT")
    assert len(report.samples_ms) == 5
    assert report.sentinel_before_ms > 0


@pytest.mark.nightly
def test_files_of_others_are_measured_over_a_real_ssh_connection(sshd, launcher, shared, tmp_path):
    store = Store(tmp_path / "latency.db")
    for name in ("coral_mobilenet_v1_0.25_128_quant", "mlperf_tiny_vww_96_float"):
        device = ssh_device(sshd, launcher, tmp_path)
        report = profile(shared / "foreign" / "tflite" / f"{name}.tflite", device, QUICK, store=store)
        assert (len(report.samples_ms), report.unproven) == (5, "not proven here")
    with pytest.raises(DeviceError, match=r"does not load this file .*: --device host may time it"):
        profile(shared / "foreign" / "tflite" / "coral_keras_lstm_mnist_ptq.tflite", device, QUICK, store=store)


def test_a_greeting_of_the_far_shell_is_no_answer(sshd, tmp_path):
    port, options = sshd
    greets = 'command="echo welcome; echo notice >&2; eval \\"$SSH_ORIGINAL_COMMAND\\"" '
    (tmp_path / "authorized").write_text(greets + (tmp_path / "user_key.pub").read_text())
    answer = ssh_device((port, options), "", tmp_path).open().shell("echo out; echo err >&2; exit 3")  # type: ignore[attr-defined]
    assert answer == Answer(3, "out\nerr\n")


def test_a_host_that_refuses_the_key_is_one_line(sshd, launcher, tmp_path):
    (tmp_path / "authorized").write_text("")
    with pytest.raises(DeviceError, match="Permission denied"):
        ssh_device(sshd, launcher, tmp_path).open()


def test_a_host_that_is_not_there_is_one_line(launcher, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DeviceError, match="refused"):
        ssh_device((port, ()), launcher, tmp_path).open()


# ---- adb, end to end against a stand-in server -----------------------------------------------------------------------


class AdbServer(threading.Thread):
    """Enough of the adb server's protocol for one phone that is this machine: host, shell v1, and sync push."""

    def __init__(self, folder: Path, phones: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.folder, self.phones = folder, phones
        self.full, self.drop_next = False, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while request := self.request(connection):
                    if not self.answer(connection, request):
                        return
            except OSError:
                return

    def answer(self, connection: socket.socket, request: str) -> bool:
        """Serve one request; True while the connection takes another."""
        if request == "host:version":
            connection.sendall(b"OKAY" + self.framed("0029"))
        elif request in ("host:devices", "host:devices-l"):
            connection.sendall(b"OKAY" + self.framed("".join(f"{s}\t{t}\n" for s, t in self.phones.items())))
        elif request.startswith("host:t"):
            connection.sendall(b"OKAY" + (struct.pack("<Q", 1) if request.startswith("host:tport") else b""))
            return True
        elif request.startswith("shell"):
            if self.drop_next > 0:
                self.drop_next -= 1
                return False
            connection.sendall(b"OKAY")
            command = request.partition(":")[2]
            pipe, both = subprocess.PIPE, subprocess.STDOUT
            path = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
            done = subprocess.run(["sh", "-c", command], stdout=pipe, stderr=both, cwd=self.folder, env=path)
            connection.sendall(done.stdout)
        elif request == "sync:":
            connection.sendall(b"OKAY")
            self.sync(connection)
        else:
            connection.sendall(b"FAIL" + self.framed(f"unknown request {request}"))
        return False

    def sync(self, connection: socket.socket) -> None:
        kind, size = struct.unpack("<4sI", self.exactly(connection, 8))
        path = self.exactly(connection, size).decode()
        if kind == b"STAT":
            there = self.folder / path
            mode = 0o40755 if there.is_dir() else 0o100644 if there.exists() else 0
            connection.sendall(struct.pack("<4sIII", b"STAT", mode, 0, 0))
            return
        name, data = path.rpartition(",")[0], b""
        while True:
            kind, size = struct.unpack("<4sI", self.exactly(connection, 8))
            if kind == b"DONE":
                break
            data += self.exactly(connection, size)
        if self.full:
            reason = b"couldn't write: No space left on device"
            connection.sendall(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        (self.folder / name).write_bytes(data)
        connection.sendall(struct.pack("<4sI", b"OKAY", 0))

    def request(self, connection: socket.socket) -> str:
        size = self.exactly(connection, 4, may_end=True)
        return self.exactly(connection, int(size, 16)).decode() if size else ""

    @staticmethod
    def exactly(connection: socket.socket, count: int, may_end: bool = False) -> bytes:
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            if not piece:
                if may_end and not data:
                    return b""
                raise OSError("closed")
            data += piece
        return data

    @staticmethod
    def framed(text: str) -> bytes:
        return f"{len(text):04x}{text}".encode()


@pytest.fixture
def adb(tmp_path):
    pytest.importorskip("adbutils")
    getprop = tmp_path / "bin" / "getprop"
    getprop.parent.mkdir()
    getprop.write_text('#!/bin/sh\necho "made up $1"\n')
    getprop.chmod(0o755)
    server = AdbServer(tmp_path, {"PHONE1": "device"})
    server.start()
    yield server
    server.listener.close()


def phone(adb: AdbServer, launcher: str, **changes: object) -> RemoteDevice:
    device = load_device("android")
    assert isinstance(device, RemoteDevice)
    update = {"port": adb.port, "launcher": launcher, "patience_s": 10.0, "folder": f"{adb.folder}/phone", **changes}
    device.config = device.config.model_copy(update=update)
    device.sleep = lambda s: time.sleep(min(s, 0.1))
    return device


def test_a_phone_is_measured_over_adb_and_the_second_time_nothing_is_pushed(adb, launcher, tiny_tflite, tmp_path):
    store = Store(tmp_path / "latency.db")
    report = profile(tiny_tflite, phone(adb, launcher), QUICK, store=store)
    assert (report.device.kind, len(report.samples_ms)) == ("phone", 5)
    assert report.device.os == "Android made up ro.build.version.release"
    adb.full = True  # a push would fail now
    assert len(profile(tiny_tflite, phone(adb, launcher), QUICK, store=store, reuse="none").samples_ms) == 5


@pytest.mark.slow
def test_a_phone_whose_cable_is_pulled_comes_back(adb, launcher, tiny_tflite):
    device = phone(adb, launcher)
    artifact = load_artifact(tiny_tflite)
    device.measure(artifact, QUICK)
    info = device.describe()
    device.describe = lambda: info  # type: ignore[method-assign]
    adb.drop_next = 4
    assert len(device.measure(artifact, QUICK).samples_ms) == 5
    assert adb.drop_next == 0


def test_a_phone_with_full_storage_is_one_line(adb, launcher, tiny_tflite):
    adb.full = True
    with pytest.raises(DeviceError, match=r"is the storage full\? df says"):
        phone(adb, launcher).measure(load_artifact(tiny_tflite), QUICK)


@pytest.mark.parametrize(
    ("phones", "serial", "expected"),
    [
        ({}, "", "no Android phone found"),
        ({"A": "device", "B": "device"}, "", r"2 phones are connected \(A, B\)"),
        ({"A": "unauthorized"}, "", "not authorised"),
        ({"A": "offline"}, "", "is offline"),
        ({"A": "device"}, "C", "no phone 'C'"),
    ],
)
def test_a_phone_that_cannot_be_used_is_one_line(adb, phones, serial, expected):
    adb.phones = phones
    with pytest.raises(DeviceError, match=expected):
        phone(adb, "", serial=serial).open()


def test_without_an_adb_server_the_command_is_named(adb):
    adb.listener.close()
    time.sleep(0.05)
    with pytest.raises(DeviceError, match="adb start-server"):
        phone(adb, "", port=1).open()


# ---- runners that the user brings: scripts that print what the real tools print --------------------------------------

BENCHMARK_MODEL = """#!/bin/sh
case "$*" in *--use_gpu=true*) d=GPU ;; *--use_nnapi=true*) d=NNAPI ;; *) d=XNNPACK ;; esac
[ -f "${1#--graph=}" ] || { echo "ERROR: Could not open '${1#--graph=}'."; exit 1; }
echo "INFO: STARTING!"
echo "INFO: Num threads: [THREADS]"
echo "INFO: Graph: [${1#--graph=}]"
if [ $d = NNAPI ]; then
  echo "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate."
else
  echo "INFO: Explicitly applied $d delegate, and the model graph will be completely executed by the delegate."
fi
echo "INFO: Initialized session in 12.5ms."
echo "INFO: count=4 first=2071 curr=69 min=68 max=2071 avg=570.5 std=24"
echo
echo "INFO: count=50 first=1930 curr=1870 min=1868 max=2249 avg=1906.91 std=5"
echo
echo "INFO: Inference timings in us: Init: 12500, First inference: 2071, Warmup (avg): 570.5, Inference (avg): 1906.91"
"""
PERF_TEST = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -r ] && runs=$2; shift; done
echo "Setting intra_op_num_threads to 1"
i=1; while [ $i -le $runs ]; do echo "iteration:$i,time_cost:0.0025"; i=$((i + 1)); done
echo "Session creation time cost: 0.0217932 s"
echo "First inference time cost: 19 ms"
echo "Average inference time cost total: 2.500000 ms"
"""
EXECUTOR = """#!/bin/sh
for a in "$@"; do case $a in --num_executions=*) runs=${a#*=} ;; esac; done
p="I 00:00:00.003 executorch:executor_runner.cpp:600]"
echo "$p Resetting threadpool with num threads = 1" >&2
i=1; while [ $i -le $runs ]; do echo "$p Iteration $i of $runs: 3.250000 ms" >&2; i=$((i + 1)); done
echo "$p Model executed successfully $runs time(s) in 9 ms." >&2
"""


def script(folder: Path, name: str, text: str) -> str:
    path = folder / "tools" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def with_runner(adb, launcher: str, kind: str, text: str, **runner: object) -> RemoteDevice:
    named = RunnerConfig.parse({"kind": kind, "path": script(adb.folder, kind, text), **runner}, "test")
    return phone(adb, launcher, runner=named)


def as_target(path: Path, folder: Path, target: str, suffix: str) -> Path:
    """A copy of an artifact that claims another format."""
    copy = folder / f"model{suffix}"
    shutil.copy(path, copy)
    record = load_artifact(path).record
    save_record(copy, record.model_copy(update={"target": target}))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(("delegate", "runtime_info"), [("cpu", "XNNPACK (completely)"), ("gpu", "GPU (completely)")])
def test_benchmark_model_gives_means_of_its_runs_and_the_delegate_it_used(
    adb, launcher, tiny_tflite, tmp_path, delegate, runtime_info
):
    device = with_runner(adb, launcher, "benchmark_model", BENCHMARK_MODEL.replace("THREADS", "1"), delegate=delegate)
    report = profile(tiny_tflite, device, QUICK, store=Store(tmp_path / "latency.db"))
    assert report.samples_ms == (1.90691,) * 16
    assert report.processes[0].runs_per_sample == 50
    assert (report.load_ms, report.first_run_ms) == (12.5, 2.071)
    assert report.requested["delegate"] == delegate
    assert report.obtained["delegate"] == runtime_info
    assert "means of about 50 runs" in report.obtained["samples"]
    assert "benchmark_model" in report.device.runtime


@pytest.mark.slow
def test_a_delegate_or_a_thread_count_that_was_not_obtained_is_an_error(adb, launcher, tiny_tflite):
    artifact = load_artifact(tiny_tflite)
    refused = with_runner(adb, launcher, "benchmark_model", BENCHMARK_MODEL.replace("THREADS", "1"), delegate="nnapi")
    with pytest.raises(DeviceError, match=r"was to use NNAPI and did not: .*will not be executed"):
        refused.measure(artifact, QUICK)
    threads = with_runner(adb, launcher, "benchmark_model", BENCHMARK_MODEL.replace("THREADS", "4"))
    with pytest.raises(DeviceError, match=r"1 thread\(s\) were requested, and the runner used 4"):
        threads.measure(artifact, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text", "target", "suffix", "ms", "load_ms"),
    [
        ("onnxruntime_perf_test", PERF_TEST, "onnx", ".onnx", 2.5, 21.7932),
        ("executor_runner", EXECUTOR, "executorch", ".pte", 3.25, None),
    ],
)
def test_the_other_vendors_runners_give_every_run(
    adb, launcher, tiny_tflite, tmp_path, kind, text, target, suffix, ms, load_ms
):
    device = with_runner(adb, launcher, kind, text)
    file = as_target(tiny_tflite, tmp_path, target, suffix)
    report = profile(file, device, QUICK, store=Store(tmp_path / "latency.db"))
    assert set(report.samples_ms) == {ms}
    assert len(report.samples_ms) >= QUICK.min_runs
    assert report.load_ms == load_ms
    assert report.obtained["threads"] == "1"
    with pytest.raises(DeviceError, match=f"runs {target} files, and this is 'litert'"):
        device.for_artifact(load_artifact(tiny_tflite))


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        ({"kind": "benchmark_model", "path": "/no/such/binary"}, "no file '/no/such/binary'"),
        ({"kind": "executor_runner", "path": __file__, "delegate": "gpu"}, "has no delegate 'gpu': choose from cpu"),
        ({"kind": "benchmark_model", "path": "GARBAGE"}, "printed no 'Inference timings': 'hello'"),
        ({"kind": "benchmark_model", "path": "FAILS"}, "status 1: ERROR: cannot load"),
    ],
)
def test_runners_that_cannot_be_used_are_one_line(adb, launcher, tiny_tflite, runner, expected):
    scripts = {"GARBAGE": "#!/bin/sh\necho hello\n", "FAILS": "#!/bin/sh\necho ERROR: cannot load\nexit 1\n"}
    if runner["path"] in scripts:
        runner = {**runner, "path": script(adb.folder, runner["path"], scripts[runner["path"]])}
    device = phone(adb, launcher, runner=RunnerConfig.parse(runner, "test"))
    with pytest.raises(DeviceError, match=expected):
        device.measure(load_artifact(tiny_tflite), QUICK)
