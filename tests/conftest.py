"""Fixtures shared by all tests."""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

settings.register_profile("loaded machine", deadline=None)  # how long an example takes is no property of the code
settings.load_profile("loaded machine")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Last of all: what did not run, and what would make it run."""
    reasons = Counter(_remedied(str(report.longrepr[-1])) for report in terminalreporter.stats.get("skipped", ()))
    if reasons:
        terminalreporter.section("skipped, and how to run them")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5d}  {reason}")


def _remedied(reason: str) -> str:
    """The reason of a skip in one line; a missing module's remedy is the same for all."""
    line = " ".join(reason.removeprefix("Skipped: ").split())
    missing = line.startswith(("could not import", "needs the extra"))
    return f"{line}: run `make setup`" if missing else line


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread per test process: results repeat, and parallel workers do not fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> None:
    """SQLite asks the disk to confirm every commit, against power failures; killed processes lose nothing without."""
    try:
        from sqlalchemy import Engine, event
    except ImportError:  # without the extra 'search' nothing opens such a database
        return

    def relaxed(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relaxed)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference data in ../shared, no part of the repository: lay it beside the checkout")
    return SHARED


class Postgres:
    """A PostgreSQL server of our own: an empty cluster in a temporary folder, on a free port of this host."""

    def __init__(self, initdb: str, server: str, folder: Path, who: dict[str, Any]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        data = str(folder / "data")
        subprocess.run(
            [initdb, "-D", data, "-U", "tester", "-A", "trust"], check=True, capture_output=True, cwd=folder, **who
        )
        options = ["-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self._command, self._folder, self._who = [server, *options, "-k", str(folder)], folder, who
        self.address = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        self._running = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, cwd=self._folder, **self._who
        )
        assert self._running.stderr is not None
        for line in self._running.stderr:
            if "ready to accept connections" in line:
                break
        threading.Thread(target=self._running.stderr.read, daemon=True).start()

    def stop(self) -> None:
        """End it together with its open connections."""
        self._running.send_signal(signal.SIGINT)
        self._running.wait(30)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A running server; tests that need it skip where none is installed."""
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    initdb, server = _server_program("initdb"), _server_program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL server on this machine: run `apt-get install postgresql`")
    who: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="mobilezoo-postgres-"))
    if os.geteuid() == 0:  # the server refuses root
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user 'postgres' to run the server as")
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    running = Postgres(initdb, server, folder, who)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _server_program(name: str) -> str | None:
    """A server program; Debian keeps them out of PATH."""
    found = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)
