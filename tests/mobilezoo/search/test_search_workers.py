"""Many workers on one PostgreSQL: nothing lost, nothing doubled, the same front; and a database that goes away."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.cli.main import main
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.records import Candidate, Figures, LatencyEstimate, SearchResult
from mobilezoo.search.results import search_status
from mobilezoo.search.storage import open_study
from mobilezoo.search.study import search
from mobilezoo.workflows.search import find_study

pytestmark = pytest.mark.slow
STAGE = {"kernel": [3, 5], "expansion": [2, 3], "attention": ["none", "se"], "depth": [1, 2], "block": ["ds", "ir"]}
STAGES = [{"stride": 1, "width": [8, 16], **STAGE}, {"stride": 2, "width": [16, 24], **STAGE}]


def config(name: str, storage: str | None, **changes: Any) -> SearchConfig:
    data = {
        "name": name,
        "space": {"resolution": [32], "stem": 8, "head": 16, "stages": STAGES},
        "objective": {"target_ms": 3.0},
        "engine": "random",
        "trials": 16,
        "population": 4,
        "recipe": "digits",
        "heartbeat_s": 1,
        **({"storage": storage} if storage else {}),
        **changes,
    }
    return SearchConfig.parse(data, f"{name}.yaml")


def size(candidate: Candidate) -> float:
    return sum(s.depth * s.width * (s.expansion + s.kernel / 3) for s in candidate.point.stages)


def measure(candidate: Candidate) -> Figures:
    return Figures(latency={"host": LatencyEstimate(ms=0.5 + size(candidate) / 60, source="a formula")})


def accuracy(candidate: Candidate) -> float:
    return 100 - 900 / (10 + size(candidate))


def outcome(result: SearchResult) -> Any:
    return [(t.number, t.point, t.state, t.top1, t.reward) for t in result.trials], result.front, result.best


def worker(name: str, storage: str, folder: Path, hang_at: int = -1, **changes: Any) -> "subprocess.Popen[str]":
    """A process that judges each network in 50 ms, prints its place, and hangs at one."""
    code = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_search_workers import *
        def slow(candidate):
            print(candidate.number, flush=True)
            time.sleep(600 if candidate.number == {hang_at} else 0.05)
            return accuracy(candidate)
        search(config({name!r}, {storage!r}, **{changes!r}), slow, measure, Path({str(folder)!r}))
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("engine", ["random", "bayesian"])
def test_a_killed_worker_costs_nothing(engine: str, postgres: Any, tmp_path: Path) -> None:
    alone = search(config(engine, None, engine=engine), accuracy, measure, tmp_path / "alone")
    doomed = worker(engine, postgres.address, tmp_path / "a", hang_at=3, engine=engine)
    assert doomed.stdout is not None
    places = []
    while (place := int(doomed.stdout.readline())) != 3:
        places.append(place)
    helper = worker(engine, postgres.address, tmp_path / "b", engine=engine)
    assert helper.stdout is not None
    places.append(int(helper.stdout.readline()))  # both are at work
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    out, _ = helper.communicate(timeout=400)
    assert helper.returncode == 0
    places += [int(line) for line in out.split()]
    assert sorted(places) == sorted(set(places)), "a network was trained twice"
    joined = search(config(engine, postgres.address, engine=engine), accuracy, measure, tmp_path / "c")
    assert [t.number for t in joined.trials] == list(range(16))
    assert all(t.state == "complete" for t in joined.trials)
    if engine == "random":  # the others learn from what is finished when they are asked
        assert outcome(joined) == outcome(alone)


def test_workers_that_start_together_share_one_sequence(postgres: Any, tmp_path: Path) -> None:
    together = [worker("together", postgres.address, tmp_path / str(n)) for n in range(3)]
    outs = [w.communicate(timeout=400)[0].split() for w in together]
    assert [w.returncode for w in together] == [0, 0, 0]
    places = sorted(int(place) for out in outs for place in out)
    assert places == sorted(set(places))
    shared = search(config("together", postgres.address), accuracy, measure, tmp_path / "0")
    assert outcome(shared) == outcome(search(config("together", None), accuracy, measure, tmp_path / "alone"))
    longer = search(config("together", postgres.address, trials=20), accuracy, measure, tmp_path / "0")
    assert outcome(longer) == outcome(
        search(config("together", None, trials=20), accuracy, measure, tmp_path / "alone")
    )


def test_a_worker_paused_for_too_long_does_not_count_twice(postgres: Any, tmp_path: Path) -> None:
    paused = worker("paused", postgres.address, tmp_path / "a", hang_at=-1, trials=40)
    assert paused.stdout is not None
    paused.stdout.readline()
    os.kill(paused.pid, signal.SIGSTOP)
    result = search(config("paused", postgres.address, trials=40), accuracy, measure, tmp_path / "b")
    os.kill(paused.pid, signal.SIGCONT)
    paused.communicate(timeout=400)
    assert paused.returncode == 0
    assert outcome(result) == outcome(search(config("paused", None, trials=40), accuracy, measure, tmp_path / "alone"))


def test_a_study_is_found_by_its_url_and_the_password_stays_hidden(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = postgres.address.replace("tester@", "tester:hunter2@")
    for name in ("first", "second"):
        search(config(name, secret, trials=3), accuracy, measure, tmp_path / name)
    settings, folder = find_study(secret, "second")
    assert settings == config("second", secret, trials=3)
    assert folder == Path("runs/search-second")
    with pytest.raises(ConfigError, match="choose one with --name"):
        find_study(secret)
    for command in ("status", "front"):
        with pytest.raises(SystemExit) as done:
            main(["search", command, secret, "--name", "first"])
        assert done.value.code in (0, None)
    assert "hunter2" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="another objective") as error:
        search(config("first", secret, objective={"target_ms": 9.0}), accuracy, measure, tmp_path / "other")
    assert "hunter2" not in str(error.value)


def test_a_database_that_goes_away_is_one_line_and_costs_only_the_running_trial(
    postgres: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = config("gone", postgres.address)

    def stop_at_five(candidate: Candidate) -> float:
        if candidate.number == 5:
            postgres.stop()
            time.sleep(2.5)  # signs of life fail meanwhile
        return accuracy(candidate)

    try:
        with pytest.raises(MobilezooError, match=r"study database 'postgresql.*finished trials are kept") as error:
            search(wanted, stop_at_five, measure, tmp_path)
        assert "\n" not in str(error.value)
        with pytest.raises(MobilezooError, match="refused"):
            open_study(wanted, tmp_path)
    finally:
        postgres.start()
    assert not re.search("Traceback", capfd.readouterr().err)
    assert search_status(wanted, tmp_path).states["complete"] == 5
    result = search(wanted, accuracy, measure, tmp_path)
    assert outcome(result) == outcome(search(config("gone", None), accuracy, measure, tmp_path / "alone"))


def test_a_locked_table_only_delays(postgres: Any, tmp_path: Path) -> None:
    import sqlalchemy

    search(config("locked", postgres.address, trials=1), accuracy, measure, tmp_path)
    engine = sqlalchemy.create_engine(postgres.address)
    with engine.connect() as other:
        other.execute(sqlalchemy.text("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE"))
        threading.Timer(1.0, other.rollback).start()
        assert len(search(config("locked", postgres.address, trials=2), accuracy, measure, tmp_path).trials) == 2
