"""The search loop: sample a network, evaluate it, store the result; every trial ends in a state.

Accuracy and latency are callables, so that this module depends on no trainer, exporter or device. The study lies in
SQLite beside the result or in a shared database: a search can be stopped at any moment, by Ctrl-C or SIGKILL, and
resumes with the same command; on a shared database any number of processes call `search` at the same time.
"""

import contextlib
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.config import write_yaml
from mobilezoo.errors import ConfigError, DataError, MissingToolError, MobilezooError, RunStoppedError
from mobilezoo.search.candidates import (
    DROPPED,
    MAX_INTERRUPTIONS,
    REASON,
    STOPPED,
    Candidates,
    all_trials,
    queue_again,
)
from mobilezoo.search.genes import Genome
from mobilezoo.search.networks import check_space
from mobilezoo.search.networks import model_config as to_model_config
from mobilezoo.search.records import (
    Candidate,
    DeviceLostError,
    Evaluate,
    Figures,
    LatencyEstimate,
    Measure,
    SearchConfig,
    SearchResult,
    TrialRecord,
)
from mobilezoo.search.results import best_reward, record, remeasured_key, save
from mobilezoo.search.storage import (
    SILENT_BEATS,
    SMALLEST,
    database_errors,
    only_search_in,
    open_study,
    place_of,
    writing_in,
)

CONFIG_NAME = "search.yaml"
"""File of the whole config in the run folder, read by `mobilezoo search status` and the other subcommands."""

FATAL = (MissingToolError, DataError, DeviceLostError, RunStoppedError)
"""Errors (and SIGTERM) that no candidate causes: the search stops, and the trial runs again on resumption."""


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
        run = _Run(config, evaluate, measure, out_dir, limit)
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
    return _candidate(config, trial.number, config.space.genome(trial.point), out_dir, lambda epoch, top1: None)


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


class _CandidateError(Exception):
    """A candidate failed; the reason is stored in its trial."""


class _DroppedError(Exception):
    """Another trial of the same candidate is the active one."""


class _TargetError(ConfigError):
    """The smallest network misses the target."""


class _Run:
    """State of one call of `search`."""

    def __init__(self, config: SearchConfig, evaluate: Evaluate, measure: Measure, out_dir: Path, limit: int) -> None:
        self.config = config
        self.evaluate = evaluate
        self.measure = measure
        self.out_dir = out_dir
        self.limit = limit
        self.multi = config.goal == "front"
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.number = -1
        self.failures = 0
        self.mute_since: dict[int, float] = {}

    # ---- the loop

    def step(self, study: Study) -> bool:
        """Runs one trial, or waits for those of other workers; returns False when all are finished."""
        self.number = -1
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
            study.optimize(self.objective, n_trials=1, catch=(_CandidateError, _DroppedError))
        except ValueError as error:
            if not str(error).startswith("Cannot tell a"):
                raise
            self.number = -1  # silent for too long: another worker has taken the network over
        return True

    def finished(self, study: Study) -> tuple[int, FrozenTrial] | None:
        """Returns (candidate index, trial) of the trial that `step` ran; None if it was dropped or interrupted."""
        candidates = Candidates(all_trials(study))
        index = candidates.candidate_index(self.number) if self.number >= 0 else -1
        active = candidates.active_trial(index)
        return (index, active) if active is not None and active.number == self.number else None

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
                since = self.mute_since.setdefault(trial.number, time.monotonic())
                if time.monotonic() - since > patience_s:
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        time.sleep(min(5.0, self.config.heartbeat_s / 2))

    # ---- one trial

    def objective(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Evaluates one network; its figures and the reason of a failure are stored as attributes of the trial."""
        began = time.monotonic()
        self.number = trial.number
        trial.set_user_attr("worker", self.worker)
        trial.set_user_attr("engine", self.config.engine)
        index = self._claim(trial)
        # A candidate's own error becomes the trial's reason; a failed trial without one counts as interrupted.
        try:
            genome = self._suggest(trial)
            self._give_up(trial, index)
            top1, figures = self._evaluate(trial, index, genome)
        except (*FATAL, _TargetError) as error:
            trial.set_user_attr(STOPPED, _one_line(error))
            raise
        except optuna.TrialPruned as error:
            trial.set_user_attr(REASON, str(error) or "pruned")
            raise
        except Exception as error:
            trial.set_user_attr(REASON, _one_line(error))
            raise _CandidateError from error
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
        return self._values(top1, figures) if self.multi else self._reward(top1, figures)

    def _claim(self, trial: optuna.Trial) -> int:
        """Returns the candidate index; raises _DroppedError past the limit, or if another trial is the active one."""
        candidates = Candidates(all_trials(trial.study))
        index = candidates.candidate_index(trial.number)
        active = candidates.active_trial(index)
        if index >= self.limit or active is None or active.number != trial.number:
            trial.set_user_attr(DROPPED, True)
            raise _DroppedError
        return index

    def _give_up(self, trial: optuna.Trial, index: int) -> None:
        crashes = Candidates(all_trials(trial.study)).crash_count(index)
        if crashes >= MAX_INTERRUPTIONS:
            raise MobilezooError(f"the process ended {crashes} times in this trial")

    def _suggest(self, trial: optuna.Trial) -> Genome:
        genes, genome = self.config.space.genes, Genome()
        for gene in genes.genes:
            if genes.active(gene, genome):
                few = len(gene.choices) == 1
                genome[gene.name] = gene.choices[0] if few else trial.suggest_categorical(gene.name, gene.choices)
        trial.set_user_attr("genome", genome)
        return genome

    def _evaluate(self, trial: optuna.Trial, index: int, genome: Genome) -> tuple[float, Figures]:
        """Returns (top-1, figures): those of an earlier trial of the network, or measured now, latency first."""
        earlier = _same_network(trial, genome)
        if earlier is not None:
            figures = Figures.parse(earlier[1].user_attrs["figures"])
            top1 = float(earlier[1].user_attrs["top1"])
            trial.set_user_attr("duplicate_of", earlier[0])
            trial.set_user_attr("figures", figures.model_dump())
        else:
            candidate = _candidate(self.config, index, genome, self.out_dir, lambda e, t: self._report(trial, e, t))
            # Latency first: it takes seconds, and a candidate that cannot be exported is never trained.
            figures = self.measure(candidate)
            trial.set_user_attr("figures", figures.model_dump())
            self._check_target(trial, figures)
            top1 = float(self.evaluate(candidate))
            if not math.isfinite(top1):
                raise MobilezooError(f"accuracy is {top1}: the training diverged")
        trial.set_user_attr("top1", top1)
        trial.set_user_attr("latency_ms", self.config.objective.deciding_ms(figures.latency_ms))
        trial.set_user_attr("reward", self._reward(top1, figures))
        return top1, figures

    def _reward(self, top1: float, figures: Figures) -> float:
        return self.config.objective(top1, self.config.objective.deciding_ms(figures.latency_ms))

    def _values(self, top1: float, figures: Figures) -> tuple[float, ...]:
        """Returns the values of the front's criteria, in the order of `config.criteria`."""
        further = [getattr(figures, name) for name in self.config.further]
        unknown = [name for name, value in zip(self.config.further, further, strict=True) if value is None]
        if unknown:
            raise ConfigError(f"further = {unknown[0]}: device {self.config.devices[0]!r} does not report it")
        return (top1, *figures.latency_ms.values(), *further)

    def _report(self, trial: optuna.Trial, epoch: int, top1: float) -> None:
        """Stores an epoch's top-1 and prunes by the reward, so that fast networks are not compared by top-1 alone."""
        curve = [*trial.user_attrs.get("curve", []), (epoch, top1)]
        trial.set_user_attr("curve", curve)
        if not self.multi:  # Optuna keeps intermediate values, and prunes by them, for one objective only
            trial.report(self._reward(top1, Figures.parse(trial.user_attrs["figures"])), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"stopped after epoch {epoch} at {top1:.1f}%")

    def _check_target(self, trial: optuna.Trial, figures: Figures) -> None:
        if not self.config.check_target or trial.user_attrs.get("origin") != SMALLEST:
            return
        objective = self.config.objective
        for device, estimate in figures.latency.items():
            target = objective.targets_ms.get(device, objective.target_ms)
            if estimate.ms > target:
                key = f"targets_ms.{device}" if device in objective.targets_ms else "target_ms"
                raise _TargetError(
                    f"objective.{key} = {target:g}: no network of this space is expected to meet it: the smallest "
                    f"takes {estimate.ms:.3g} ms ({estimate.source}): raise the target, or set check_target=false to "
                    "go on"
                )


def _candidate(
    config: SearchConfig, index: int, genome: Genome, out_dir: Path, report: Callable[[int, float], None]
) -> Candidate:
    point = config.space.point(genome)
    return Candidate(
        number=index,
        point=point,
        config=to_model_config(config.space, point, f"candidate_{index:04d}"),
        folder=out_dir / "trials" / f"{index:04d}",
        report=report,
    )


def _same_network(trial: optuna.Trial, genome: Genome) -> tuple[int, FrozenTrial] | None:
    """Returns (candidate index, trial) of a complete trial of the same network; None where there is none."""
    candidates = Candidates(all_trials(trial.study))
    for index, done in candidates.finished():
        attrs = done.user_attrs
        if done.state == TrialState.COMPLETE and attrs.get("genome") == genome and "duplicate_of" not in attrs:
            return index, done
    return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if isinstance(error, MobilezooError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 300 else text[:299] + "…"


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silences Optuna's log while the search runs: trials are reported by `on_trial`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
