"""The search loop: stop and resume, failures, duplicates, other studies, broken databases, and what it writes."""

import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import ConfigError, MissingToolError, MobilezooError, RunStoppedError
from mobilezoo.models import load_model_config
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.engines import engines_for
from mobilezoo.search.kept import DATABASE, kept
from mobilezoo.search.networks import point_of
from mobilezoo.search.objective import pareto_front
from mobilezoo.search.records import (
    Candidate,
    DeviceLostError,
    Figures,
    LatencyEstimate,
    SearchResult,
    load_search_result,
)
from mobilezoo.search.results import current, search_status
from mobilezoo.search.storage import open_study
from mobilezoo.search.study import remeasure, search

STAGE = {"kernel": [3, 5], "expansion": [2, 3], "attention": ["none", "se"], "depth": [1, 2]}
DATA: dict[str, Any] = {
    "name": "toy",
    "space": {
        "resolution": [32],
        "stem": 8,
        "head": 16,
        "stages": [
            {"stride": 1, "block": ["ds", "ir"], "width": [8, 16], **STAGE},
            {"stride": 2, "block": ["ds", "ir"], "width": [16, 24], **STAGE},
        ],
    },
    "objective": {"target_ms": 3.0},
    "engine": "random",
    "trials": 8,
    "population": 3,
    "recipe": "digits",
}


def config(**changes: Any) -> SearchConfig:
    return SearchConfig.parse({**DATA, **changes}, "toy.yaml")


def size(candidate: Candidate) -> float:
    return sum(s.depth * s.width * (s.expansion + s.kernel / 3) for s in candidate.point.stages)


def figures(ms: float, **more: Any) -> Figures:
    return Figures(latency={"host": LatencyEstimate(ms=ms, source="a formula")}, **more)


class Judge:
    """Deterministic accuracy and latency that remember what they were asked."""

    def __init__(self) -> None:
        self.timed: list[int] = []
        self.trained: list[int] = []

    def measure(self, candidate: Candidate) -> Figures:
        self.timed.append(candidate.number)
        return figures(0.5 + size(candidate) / 60)

    def evaluate(self, candidate: Candidate) -> float:
        self.trained.append(candidate.number)
        bonus = sum(s.attention == "se" for s in candidate.point.stages)
        return 100 - 900 / (10 + size(candidate)) + bonus

    def search(self, config: SearchConfig, folder: Path, **kwargs: Any) -> SearchResult:
        return search(config, self.evaluate, self.measure, folder, **kwargs)


def outcome(result: SearchResult) -> list[Any]:
    return [(t.point, t.state, t.top1, t.reward, t.duplicate_of is not None) for t in result.trials]


def test_a_search_leaves_a_record_a_front_and_yamls_that_are_its_networks(tmp_path: Path) -> None:
    shown: list[int] = []
    result = Judge().search(config(), tmp_path, on_trial=lambda trial, best: shown.append(trial.number))
    assert load_search_result(tmp_path) == result
    assert [t.number for t in result.trials] == shown == list(range(8))
    assert result.trials[0].point == config().space.smallest()
    done = [t for t in result.trials if t.duplicate_of is None]
    top1, ms = [t.top1 or 0.0 for t in done], [t.latency.ms for t in done if t.latency]
    assert result.front == tuple(done[i].number for i in pareto_front(top1, ms))
    assert result.best == max(done, key=lambda t: t.reward or 0.0).number
    for number, name in [*zip(result.front, result.front_yaml, strict=True), (result.best, result.best_yaml)]:
        assert name is not None
        found = load_model_config(tmp_path / name)
        assert point_of(config().space, found) == result.trial(number or 0).point
    assert len(list((tmp_path / "front").iterdir())) == len(result.front)
    assert json.loads((tmp_path / "search.json").read_text())["schema_version"] == 1


def test_a_result_is_kept_until_the_database_the_config_or_the_folder_changes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = Judge().search(config(), run)
    assert kept(config(), run) == result
    assert kept(config(trials=9), run) is None
    shutil.copytree(run, tmp_path / "copy")
    assert kept(config(), tmp_path / "copy") is None  # its networks' files name the folder
    study = open_study(config(), run)
    study.enqueue_trial(config().space.genome(config().space.smallest()))
    assert kept(config(), run) is None
    assert kept(config(), run) is None
    again = current(config(), run)
    assert kept(config(), run) == again
    assert again.model_copy(update={"basis": ""}) == result.model_copy(update={"basis": ""})
    (run / f"{DATABASE}-journal").write_bytes(b"of a writer that was killed")
    assert kept(config(), run) is None
    (run / f"{DATABASE}-journal").unlink()
    (run / again.front_yaml[0]).unlink()
    assert kept(config(), run) is None
    current(config(), run)
    (run / "search.json").write_text("{")
    assert kept(config(), run) is None


def test_the_best_reward_told_is_that_of_the_whole_study(tmp_path: Path) -> None:
    wanted = config(engine="random")
    Judge().search(wanted, tmp_path, trials=5)
    told: list[float] = []
    result = Judge().search(wanted, tmp_path, trials=6, on_trial=lambda trial, best: told.append(best))
    rewards = [t.reward or 0.0 for t in result.trials]
    assert rewards[5] < max(rewards), "the trial told is itself the best: the test shows nothing"
    assert told == [max(rewards)]


@pytest.mark.slow
def test_a_search_killed_in_a_trial_loses_nothing_and_runs_that_network_again(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_search_study import *
        judge = Judge()
        def slow(candidate):
            if candidate.number == 4:
                print("in trial 4", flush=True)
                time.sleep(60)
            return judge.evaluate(candidate)
        search(config(), slow, judge.measure, Path({str(tmp_path / "killed")!r}))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "in trial 4\n"
    with pytest.raises(MobilezooError, match="another search is running"):
        Judge().search(config(), tmp_path / "killed")
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    judge = Judge()
    resumed = judge.search(config(), tmp_path / "killed")
    assert len(judge.trained) <= 4
    assert outcome(resumed) == outcome(Judge().search(config(), tmp_path / "unbroken"))


@pytest.mark.slow
def test_a_network_that_keeps_killing_the_process_is_given_up(tmp_path: Path) -> None:
    def crash(candidate: Candidate) -> float:
        if candidate.number >= 2:
            raise KeyboardInterrupt  # what is left behind equals that of a killed process
        return 50.0

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            search(config(), crash, Judge().measure, tmp_path)
    result = Judge().search(config(), tmp_path)
    failed = [t for t in result.trials if t.state == "failed"]
    assert len(failed) == 1
    assert "the process ended 3 times" in (failed[0].reason or "")
    assert len(result.trials) == 8


def test_a_failing_network_is_recorded_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    judge = Judge()

    def sometimes(candidate: Candidate) -> float:
        if candidate.number == 3:
            raise RuntimeError("no   kernel\nfor this shape")
        return float("nan") if candidate.number == 5 else judge.evaluate(candidate)

    result = search(config(), sometimes, judge.measure, tmp_path)
    assert {t.number: t.reason for t in result.trials if t.state == "failed"} == {
        3: "RuntimeError: no kernel for this shape",
        5: "accuracy is nan: the training diverged",
    }
    assert len(result.trials) == 8


def test_failures_in_a_row_end_the_search_with_the_last_reason(tmp_path: Path) -> None:
    def fail(candidate: Candidate) -> Figures:
        raise MobilezooError("phone unplugged")

    with pytest.raises(MobilezooError, match="3 networks failed in a row, the last one: phone unplugged"):
        search(config(max_failures=3), Judge().evaluate, fail, tmp_path)
    assert all(t.reason == "phone unplugged" for t in load_search_result(tmp_path).trials)


@pytest.mark.slow
def test_a_missing_toolchain_stops_the_search_and_its_network_runs_again(tmp_path: Path) -> None:
    def missing(candidate: Candidate) -> Figures:
        raise MissingToolError("litert_torch", "litert")

    with pytest.raises(MissingToolError, match="pip install"):
        search(config(), Judge().evaluate, missing, tmp_path)
    assert outcome(Judge().search(config(), tmp_path)) == outcome(Judge().search(config(), tmp_path / "fresh"))


def test_the_same_network_is_not_trained_twice(tmp_path: Path) -> None:
    stages = [{"stride": 2, "block": ["ds"], "kernel": [3, 5], "width": [8], "depth": [1]}]
    judge = Judge()
    small = {**DATA["space"], "stages": stages}
    result = judge.search(config(space=small, trials=6), tmp_path)
    assert len(judge.trained) == len(judge.timed) == 2
    again = [t for t in result.trials if t.duplicate_of is not None]
    assert len(again) == 4
    assert all(t.top1 == result.trial(t.duplicate_of or 0).top1 for t in again)


def test_latency_is_measured_before_training_and_an_impossible_target_is_said_first(tmp_path: Path) -> None:
    judge = Judge()
    impossible = config(objective={"target_ms": 0.1})
    with pytest.raises(ConfigError, match=r"target_ms = 0.1: .* takes 1.3 ms \(a formula\)"):
        judge.search(impossible, tmp_path)
    assert judge.trained == []
    result = judge.search(config(), tmp_path)  # nothing was learned, so the same folder takes the mended target
    assert len(result.trials) == 8
    assert judge.search(config(objective={"target_ms": 0.1}, check_target=False), tmp_path / "other").best is not None


def test_pruned_networks_keep_their_curve(tmp_path: Path) -> None:
    judge = Judge()

    def with_curve(candidate: Candidate) -> float:
        for epoch in range(3):
            candidate.report(epoch, 10.0 * epoch)
        return judge.evaluate(candidate)

    result = search(config(trials=2), with_curve, judge.measure, tmp_path)
    assert result.trials[0].curve == ((0, 0.0), (1, 10.0), (2, 20.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {**DATA["space"], "stem": 16}}, "a search of another space: use name=OTHER"),
        pytest.param({"objective": {"target_ms": 4.0}}, "with another objective", marks=pytest.mark.slow),
        pytest.param({"goal": "front"}, "with another goal", marks=pytest.mark.slow),
        pytest.param({"recipe": "imagenet"}, "with another training recipe", marks=pytest.mark.slow),
        ({"devices": ["phone"]}, "with another latency source"),
    ],
)
def test_a_study_of_something_else_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    Judge().search(config(trials=1), tmp_path)
    with pytest.raises(ConfigError, match=message):
        Judge().search(config(**change), tmp_path)
    assert len(Judge().search(config(trials=2), tmp_path).trials) == 2


def test_a_foreign_damaged_or_locked_database_is_one_line(tmp_path: Path) -> None:
    import optuna

    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / DATABASE).write_bytes(b"not a database" * 100)
    with pytest.raises(MobilezooError, match="file is not a database"):
        Judge().search(config(), tmp_path / "noise")
    (tmp_path / "foreign").mkdir()
    optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path}/foreign/{DATABASE}")
    with pytest.raises(ConfigError, match="holds the study 'mine'"):
        Judge().search(config(), tmp_path / "foreign")
    Judge().search(config(trials=1), tmp_path / "locked")
    other = sqlite3.connect(tmp_path / "locked" / DATABASE)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(MobilezooError, match="database is locked; finished trials are kept"):
        open_study(config(), tmp_path / "locked", lock_timeout_s=0.2)
    assert time.monotonic() - began < 20
    other.rollback()
    other.close()
    assert len(Judge().search(config(trials=2), tmp_path / "locked").trials) == 2


def test_a_study_bears_the_name_of_its_search_and_one_of_before_goes_on(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / DATABASE}"
    Judge().search(config(trials=2), tmp_path)
    assert optuna.get_all_study_names(url) == ["toy"]
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
        database.execute("UPDATE studies SET study_name = 'search'")
    assert search_status(config(), tmp_path).states["complete"] == 2
    assert len(Judge().search(config(trials=3), tmp_path).trials) == 3
    assert optuna.get_all_study_names(url) == ["search"]


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[] if name == "nsga2" else [pytest.mark.slow]) for name in engines_for("front")]
)
def test_a_front_may_trade_several_devices_and_the_size(engine: str, tmp_path: Path) -> None:
    targets = {"target_ms": 3.0, "targets_ms": {"phone": 9.0}}
    many = {"goal": "front", "engine": engine, "further": ["size_mb"], "trials": 12, "population": 4}
    wanted = config(devices="host,phone", objective=targets, **many)

    def measure(candidate: Candidate) -> Figures:
        size_mb = float(sum(s.width for s in candidate.point.stages))
        fast = figures(0.5 + size(candidate) / 60).latency["host"]
        slow = fast.model_copy(update={"ms": fast.ms * (1 + candidate.point.stages[0].kernel)})
        return Figures(latency={"host": fast, "phone": slow}, size_mb=size_mb)

    assert wanted.criteria == ("top1", "host_ms", "phone_ms", "size_mb")
    result = search(wanted, Judge().evaluate, measure, tmp_path)
    rows = {
        t.number: np.array([-(t.top1 or 0), t.latency.ms, t.elsewhere["phone"].ms, t.size_mb or 0])
        for t in result.trials
        if t.duplicate_of is None and t.latency
    }
    dominated = {a for a in rows for b in rows if (rows[b] <= rows[a]).all() and (rows[b] < rows[a]).any()}
    assert set(result.front) == rows.keys() - dominated
    # The reward looks at the device that is worst against its target.
    first = result.trials[0]
    assert first.reward == pytest.approx(wanted.objective(first.top1 or 0, first.elsewhere["phone"].ms * 3 / 9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": "front", "engine": "evolution"}, "seeks a front: bayesian"),
        ({"engine": "nsga3"}, "seeks a reward: bayesian"),
        ({"further": ["size_mb"]}, "goal: front with further"),
        ({"goal": "front", "pruner": "median"}, "pruner: none with goal = front"),
        ({"devices": ["host", "host"]}, "each device once"),
        ({"devices": []}, "devices"),
        ({"on_device_lost": "estimate"}, "fallback: FILE together"),
        ({"fallback": "a.json"}, "fallback: FILE together"),
        ({"estimator": "a.json", "devices": ["host", "phone"]}, "one device with an estimator"),
        ({"objective": {"target_ms": 3, "targets_ms": {"phone": 5}}}, r"targets_ms of devices \['host'\], got phone"),
        ({"storage": "nonsense"}, "expected a database URL such as postgresql"),
        ({"storage": "mongo://server/searches"}, "expected a database URL such as postgresql"),
    ],
)
def test_contradictory_configs_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Judge().search(config(**changes), tmp_path)


def test_a_search_in_a_shared_database_does_not_replace_the_results_of_the_folder(tmp_path: Path) -> None:
    own = Judge().search(config(trials=3), tmp_path / "run")
    shared = config(trials=3, seed=1, storage=f"sqlite:///{tmp_path}/shared.db")
    found = Judge().search(shared, tmp_path / "other")
    for use in (lambda: Judge().search(shared, tmp_path / "run"), lambda: current(shared, tmp_path / "run")):
        with pytest.raises(ConfigError, match=r"holds a search of its own \(study\.db\), .*use name=OTHER"):
            use()
    assert load_search_result(tmp_path / "run") == own
    assert current(shared, tmp_path / "other").trials == found.trials


def test_a_lost_device_stops_the_search_and_its_network_runs_again_however_often(tmp_path: Path) -> None:
    judge = Judge()

    def lost(candidate: Candidate) -> Figures:
        if candidate.number == 2:
            raise DeviceLostError("device 'phone' is gone")
        return judge.measure(candidate)

    for _ in range(4):
        with pytest.raises(DeviceLostError, match="is gone"):
            search(config(), judge.evaluate, lost, tmp_path)
    assert outcome(Judge().search(config(), tmp_path)) == outcome(Judge().search(config(), tmp_path / "unbroken"))


@pytest.mark.slow
def test_sigterm_in_a_training_stops_the_search_and_its_network_runs_again(tmp_path: Path) -> None:
    judge = Judge()

    def stopped(candidate: Candidate) -> float:
        if candidate.number == 2:
            raise RunStoppedError("stopped at epoch 1")
        return judge.evaluate(candidate)

    with pytest.raises(RunStoppedError, match="stopped at"):
        search(config(), stopped, judge.measure, tmp_path)
    assert outcome(Judge().search(config(), tmp_path)) == outcome(Judge().search(config(), tmp_path / "unbroken"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        MobilezooError("x: No space left on device"),
    ],
)
@pytest.mark.slow
def test_a_full_disk_stops_the_search_and_its_network_runs_again(error: Exception, tmp_path: Path) -> None:
    """However it is reported, it is no fault of the network: an empty front and exit code 0 would be a wrong result."""
    judge = Judge()

    def full(candidate: Candidate) -> float:
        if candidate.number == 2:
            raise error
        return judge.evaluate(candidate)

    with pytest.raises(type(error), match="No space left"):
        search(config(), full, judge.measure, tmp_path)
    assert outcome(Judge().search(config(), tmp_path)) == outcome(Judge().search(config(), tmp_path / "unbroken"))


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband", "sha"])
def test_trainings_that_lag_behind_are_ended_by_the_reward_not_the_accuracy(pruner: str, tmp_path: Path) -> None:
    def with_curve(candidate: Candidate) -> float:
        for epoch in range(4):
            candidate.report(epoch, 90.0 - (0 if candidate.number < 5 else 60) + epoch)
        return 90.0

    result = search(config(pruner=pruner, check_target=False), with_curve, Judge().measure, tmp_path)
    pruned = [t for t in result.trials if t.state == "pruned"]
    assert pruned
    assert all(t.reason and t.reason.startswith("stopped after epoch") and t.curve for t in pruned)
    assert result.best not in [t.number for t in pruned]

    fast = {"host": LatencyEstimate(ms=1.0, source="a formula")}
    slow = {"host": LatencyEstimate(ms=30.0, source="a formula")}
    rewards: dict[int, float] = {}

    def accurate_but_slow(candidate: Candidate) -> float:
        candidate.report(0, 50.0 if candidate.number < 6 else 90.0)
        rewards[candidate.number] = 0.0
        return 50.0

    def measure(candidate: Candidate) -> Figures:
        return Figures(latency=fast if candidate.number < 6 else slow)

    hard = config(pruner="median", check_target=False, objective={"target_ms": 3.0, "reward": "mnas_hard"})
    result = search(hard, accurate_but_slow, measure, tmp_path / "slow")
    assert [t.state for t in result.trials[6:]] == ["pruned", "pruned"]


def test_the_front_is_measured_again_and_both_values_stay(tmp_path: Path) -> None:
    first = Judge().search(config(), tmp_path)
    asked: list[int] = []

    def again(candidate: Candidate) -> dict[str, LatencyEstimate]:
        asked.append(candidate.number)
        assert candidate.point == first.trial(candidate.number).point
        return {"host": LatencyEstimate(ms=9.0, source="measured: again")}

    second = remeasure(config(), again, tmp_path)
    assert asked == list(first.front) == list(second.front)
    assert all(second.trial(n).remeasured["host"].ms == 9.0 for n in second.front)
    assert all(second.trial(n).latency == first.trial(n).latency for n in second.front)
    assert load_search_result(tmp_path) == second
    remeasure(config(), again, tmp_path)
    assert len(asked) == len(first.front)
    assert Judge().search(config(), tmp_path) == second


def test_the_standing_is_told_while_another_process_searches(tmp_path: Path) -> None:
    seen = []

    def look(candidate: Candidate) -> float:
        seen.append(search_status(config(), tmp_path))
        return 50.0

    search(config(trials=3), look, Judge().measure, tmp_path)
    last = seen[-1]
    assert (last.states["complete"], last.states["running"]) == (2, 1)
    assert last.running[0].number == 2
    assert last.running[0].worker.endswith(f":{os.getpid()}")
    assert last.best is not None
    with pytest.raises(ConfigError, match=r"study\.db' not found"):
        search_status(config(), tmp_path / "elsewhere")
