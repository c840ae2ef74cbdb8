"""The search loop: sample a network, evaluate it, store the result; every trial ends in a state.

Accuracy and latency are callables, so that this module depends on no trainer, exporter or device. The study lies in
SQLite beside the result or in a shared database: a search can be stopped at any moment, by Ctrl-C or SIGKILL, and
resumes with the same command; on a shared database any number of processes call `search` at the same time.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.config import write_yaml
from mobilezoo.errors import MobilezooError
from mobilezoo.search.candidates import REASON, Candidates, all_trials, queue_again
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.database import SILENT_BEATS, database_errors
from mobilezoo.search.networks import check_space
from mobilezoo.search.records import (
    CONFIG_NAME,
    Candidate,
    Evaluate,
    LatencyEstimate,
    Measure,
    SearchResult,
    TrialRecord,
)
from mobilezoo.search.results import best_reward, record, remeasured_key, save
from mobilezoo.search.storage import only_search_in, open_study, place_of, writing_in
from mobilezoo.search.trial import CandidateError, DroppedError, TrialObjective, make_candidate


def search(
    config: SearchConfig,
    evaluate: Evaluate,
    measure: Measure,
    out_dir: Path,
    trials: int | None = None,
    on_trial: Callable[[TrialRecord, float], None] | None = None,
) -> SearchResult:
    """Evaluates networks until the study holds enough finished trials; resumes a stopped search.

    Writes `search.yaml`, `search.json` and the YAMLs of the front and of the best network. Trials that were running
    when a search stopped run again. With `config.storage` several processes may call it at once; each returns when all
    trials are finished, no matter which process ran them.

    Args:
        config: the search.
        evaluate: returns a candidate's top-1 in percent.
        measure: returns a candidate's latency, size and memory; called first.
        out_dir: run folder.
        trials: total number of trials, those of earlier calls included; None takes the config's.
        on_trial: called after each trial of this call with its record and the best reward of the study.

    Returns:
        The result as written to `search.json`.

    Raises:
        ConfigError: the study is of another space, or the smallest network misses the target (before any training).
        MobilezooError: the database cannot be used, or too many networks failed in a row.
    """
    check_space(config.space, config.name or "search")
    limit = config.trials if trials is None else trials
    with _opened(config, out_dir) as study:
        header = ["written by `mobilezoo search run`: goes on with `mobilezoo search run` and this file"]
        write_yaml(out_dir / CONFIG_NAME, config.model_dump(mode="json", exclude_defaults=True), header)
        run = _Loop(config, TrialObjective(config, evaluate, measure, out_dir, limit))
        try:
            while run.step(study):
                last = run.finished(study)
                if last is not None and on_trial is not None:
                    on_trial(record(config, *last), best_reward(study))
                run.stop_on_failures(last)
        finally:
            with writing_in(out_dir):
                result = save(config, study, out_dir)
    return result


def remeasure(
    config: SearchConfig,
    measure: Callable[[Candidate], dict[str, LatencyEstimate]],
    out_dir: Path,
    *,
    again: bool = False,
    on_member: Callable[[TrialRecord], None] | None = None,
) -> SearchResult:
    """Measures the networks of the front once more; the new values are stored beside those of the search.

    Args:
        config: the search.
        measure: returns a candidate's latency by device; its exceptions propagate.
        out_dir: run folder.
        again: also measure networks that were measured again before.
        on_member: called after each network with its record.

    Returns:
        The result as written to `search.json`.

    Raises:
        ConfigError: the study is of another space.
        MobilezooError: the database cannot be used.
    """
    with _opened(config, out_dir) as study:
        result = save(config, study, out_dir)
        for number in result.front:
            member = result.trial(number)
            if member.remeasured and not again:
                continue
            assert member.point is not None
            found = measure(candidate_of(config, member, out_dir))
            figures = {device: estimate.model_dump() for device, estimate in found.items()}
            study.set_user_attr(remeasured_key(number), {**_kept(member), **figures})
            with writing_in(out_dir):
                result = save(config, study, out_dir)
            if on_member is not None:
                on_member(result.trial(number))
    return result


def _kept(member: TrialRecord) -> dict[str, object]:
    return {device: estimate.model_dump() for device, estimate in member.remeasured.items()}


def candidate_of(config: SearchConfig, trial: TrialRecord, out_dir: Path) -> Candidate:
    """Rebuilds the candidate of a trial, which must have a network.

    Args:
        config: the search.
        trial: its record.
        out_dir: run folder.
    """
    assert trial.point is not None
    return make_candidate(config, trial.number, config.space.genome(trial.point), out_dir, lambda epoch, top1: None)


@contextlib.contextmanager
def _opened(config: SearchConfig, out_dir: Path) -> Iterator[Study]:
    """Opens the study for writing: exclusively where it lies in SQLite, beside other workers in a shared database."""
    alone = contextlib.nullcontext() if config.storage else only_search_in(out_dir)
    with alone, _quiet_optuna(), database_errors(place_of(config, out_dir)):
        study = open_study(config, out_dir)
        if not config.storage:
            for trial in all_trials(study):  # the lock is ours, so whoever ran these is dead
                if trial.state == TrialState.RUNNING:
                    study.tell(trial.number, state=TrialState.FAIL)
        yield study


class _Loop:
    """State of one call of `search`."""

    def __init__(self, config: SearchConfig, objective: TrialObjective) -> None:
        self.config = config
        self.objective = objective
        self.limit = objective.limit
        self.failures = 0
        self.silent_since: dict[int, float] = {}

    def step(self, study: Study) -> bool:
        """Runs one trial, or waits for those of other workers; returns False when all are finished."""
        self.objective.number = -1
        candidates = Candidates(all_trials(study))
        # Interrupted candidates run again before a new one is begun.
        if candidates.missing(self.limit):
            queue_again(study, self.limit)
            return True
        if len(candidates.finished(self.limit)) >= self.limit:
            return False
        # Nothing left to start, but other workers still evaluate: one of them may die.
        if not candidates.open(self.limit):
            self._wait(study, candidates)
            return True
        try:
            study.optimize(self.objective, n_trials=1, catch=(CandidateError, DroppedError))
        except ValueError as error:
            if not str(error).startswith("Cannot tell a"):
                raise
            self.objective.number = -1  # silent for too long: another worker has taken the network over
        return True

    def finished(self, study: Study) -> tuple[int, FrozenTrial] | None:
        """Returns (candidate index, trial) of the trial that `step` ran; None if it was dropped or interrupted."""
        candidates = Candidates(all_trials(study))
        index = candidates.candidate_index(self.objective.number) if self.objective.number >= 0 else -1
        active = candidates.active_trial(index)
        return (index, active) if active is not None and active.number == self.objective.number else None

    def stop_on_failures(self, last: tuple[int, FrozenTrial] | None) -> None:
        """Raises MobilezooError after `max_failures` failed networks in a row; `last` is from `finished`."""
        if last is None:
            return
        failed = last[1].state == TrialState.FAIL
        self.failures = self.failures + 1 if failed else 0
        if self.failures >= self.config.max_failures:
            reason = last[1].user_attrs.get(REASON, "unknown")
            raise MobilezooError(f"{self.failures} networks failed in a row, the last one: {reason}")

    def _wait(self, study: Study, candidates: Candidates) -> None:
        """Waits for other workers, and fails the trials of those without a heartbeat."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        patience_s = SILENT_BEATS * self.config.heartbeat_s
        for trial in candidates.valid_trials:  # Optuna overlooks a process that died before its first sign of life
            if trial.state == TrialState.RUNNING and "worker" not in trial.user_attrs:
                since = self.silent_since.setdefault(trial.number, time.monotonic())
                if time.monotonic() - since > patience_s:
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        time.sleep(min(5.0, self.config.heartbeat_s / 2))


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silences Optuna's log while the search runs: trials are reported by `on_trial`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
