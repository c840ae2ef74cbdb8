"""The results database on a real PostgreSQL server, started for the test and ended with it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from mobilezoo.artifacts import DeviceInfo, LatencyReport, Protocol
from mobilezoo.errors import MobilezooError
from mobilezoo_latency import Store

pytestmark = pytest.mark.slow
INFO = DeviceInfo(name="host", kind="host", runtime="LiteRT")


def program(name: str) -> str | None:
    """A server program; Debian keeps them out of PATH."""
    found = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("psycopg", reason="pip install 'psycopg[binary]'")
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL server on this machine (apt-get install postgresql)")
    who: dict[str, object] = {}
    folder = Path(tempfile.mkdtemp(prefix="mobilezoo-postgres-"))
    if os.geteuid() == 0:  # the server refuses root
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user 'postgres' to run the server as")
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    subprocess.run(
        [initdb, "-D", data, "-U", "tester", "-A", "trust"], check=True, capture_output=True, cwd=folder, **who
    )
    options = ["-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(folder)]
    running = subprocess.Popen([server, *options], stderr=subprocess.PIPE, text=True, cwd=folder, **who)
    assert running.stderr is not None
    for line in running.stderr:
        if "ready to accept connections" in line:
            break
    threading.Thread(target=running.stderr.read, daemon=True).start()
    yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    running.send_signal(signal.SIGINT)  # ends open connections too
    running.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def made(sha: str, **changes: object) -> LatencyReport:
    fields = {
        "artifact_sha256": sha,
        "artifact": "a.tflite",
        "target": "litert",
        "precision": "fp32",
        "model": "a",
        "device": INFO,
        "protocol": Protocol(),
        "samples_ms": (1.0, 2.0, 3.0),
        "load_ms": 1.0,
        "first_run_ms": 1.0,
        "sentinel_before_ms": 1.0,
        "sentinel_after_ms": 1.0,
        "measured_at": "2024-01-01T00:00:00+00:00",
    }
    return LatencyReport(**{**fields, **changes})


def test_reports_come_back_whole_from_postgresql(address):
    store = Store(address)
    report = made("a" * 64)
    assert store.add(report)
    assert not store.add(report)
    found = store.find("a" * 64, INFO, Protocol())
    assert found is not None
    assert found.model_copy(update={"cached": False}) == report
    assert store.add(made("b" * 64, noisy=("drift",)))
    assert store.find("b" * 64, INFO, Protocol()) is None
    assert [r.artifact_sha256[0] for _, r in store.rows(kind="host")] == ["a", "b"]


def test_concurrent_writers_lose_nothing_on_postgresql(address):
    before = len(Store(address).rows())

    def write(worker: int) -> None:
        store = Store(address)
        for i in range(20):
            store.add(made(f"{worker:032d}{i:032d}"))

    workers = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Store(address).rows()) == before + 80


def test_two_writers_of_one_report_keep_one(address):
    stores = [Store(address) for _ in range(6)]
    start = threading.Barrier(len(stores))
    kept: list[bool] = []

    def write(store: Store) -> None:
        start.wait()
        kept.append(store.add(made("c" * 64)))

    workers = [threading.Thread(target=write, args=(store,)) for store in stores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert kept.count(True) == 1
    assert len(kept) == len(stores)


def test_a_server_that_is_gone_is_one_line():
    pytest.importorskip("psycopg")
    with pytest.raises(MobilezooError, match="results database") as error:
        Store("postgresql+psycopg://tester@127.0.0.1:1/postgres")
    assert "\n" not in str(error.value)
