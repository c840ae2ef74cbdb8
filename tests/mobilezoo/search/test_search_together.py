"""Many workers that begin at the same moment on an empty database: each finds a whole study."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.search.storage import stored_config

pytestmark = pytest.mark.slow
WORKERS = 8
OPEN = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_search_study import config
    from mobilezoo.search.storage import open_study
    print("ready", flush=True)
    sys.stdin.readline()
    study = open_study(config(storage={url!r}), Path({folder!r}))
    print(study._study_id, len(study.get_trials()), flush=True)
"""


def start(url: str, folder: Path) -> "subprocess.Popen[str]":
    code = textwrap.dedent(OPEN).format(tests=str(Path(__file__).parent), url=url, folder=str(folder))
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def fresh_database(postgres: Any, name: str) -> str:
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres.address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(postgres.address).removesuffix("postgres") + name


@pytest.mark.parametrize("round_", range(2))
def test_workers_that_begin_on_an_empty_database_together_share_one_study(
    round_: int, postgres: Any, tmp_path: Path
) -> None:
    url = fresh_database(postgres, f"together_{round_}")
    workers = [start(url, tmp_path / str(n)) for n in range(WORKERS)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", worker.stderr.read() if worker.stderr else ""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * WORKERS, [err[-600:] for _, err in said]
    assert {out for out, _ in said} == {"1 1\n"}  # one study, and the smallest network queued once
    assert stored_config(url, None)[0] == "toy"
