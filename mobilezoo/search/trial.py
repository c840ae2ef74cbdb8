"""One trial of a search: choose a network, measure its latency, evaluate it, store everything in the trial."""

import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.errors import ConfigError, DataError, MissingToolError, MobilezooError, RunStoppedError
from mobilezoo.files import is_out_of_room
from mobilezoo.search.candidates import DROPPED, MAX_INTERRUPTIONS, REASON, STOPPED, Candidates, all_trials
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.genes import Genome
from mobilezoo.search.networks import model_config as to_model_config
from mobilezoo.search.records import Candidate, DeviceLostError, Evaluate, Figures, Measure
from mobilezoo.search.storage import SMALLEST

FATAL = (MissingToolError, DataError, DeviceLostError, RunStoppedError)
"""Errors (and SIGTERM) that no candidate causes: the search stops, and the trial runs again on resumption. A full disk
is one, whatever error reports it."""


class CandidateError(Exception):
    """A candidate failed; the reason is stored in its trial."""


class DroppedError(Exception):
    """Another trial of the same candidate is the active one."""


class TargetError(ConfigError):
    """The smallest network misses the target."""


class TrialObjective:
    """Optuna's objective: evaluates one network per call.

    Args:
        config: the search.
        evaluate: returns a candidate's top-1 in percent.
        measure: returns a candidate's latency, size and memory.
        out_dir: run folder.
        limit: total number of candidates; a trial with a higher index is dropped.
    """

    def __init__(self, config: SearchConfig, evaluate: Evaluate, measure: Measure, out_dir: Path, limit: int) -> None:
        self.config = config
        self.evaluate = evaluate
        self.measure = measure
        self.out_dir = out_dir
        self.limit = limit
        self.multi = config.goal == "front"
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.number = -1
        """Optuna's number of the trial of the last call; -1 before the first one."""

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
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
        except (*FATAL, TargetError) as error:
            trial.set_user_attr(STOPPED, _one_line(error))
            raise
        except optuna.TrialPruned as error:
            trial.set_user_attr(REASON, str(error) or "pruned")
            raise
        except Exception as error:
            if is_out_of_room(error):
                trial.set_user_attr(STOPPED, _one_line(error))
                raise
            trial.set_user_attr(REASON, _one_line(error))
            raise CandidateError from error
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
        return self._values(top1, figures) if self.multi else self._reward(top1, figures)

    def _claim(self, trial: optuna.Trial) -> int:
        """Returns the candidate index; raises DroppedError past the limit, or if another trial is the active one."""
        candidates = Candidates(all_trials(trial.study))
        index = candidates.candidate_index(trial.number)
        active = candidates.active_trial(index)
        if index >= self.limit or active is None or active.number != trial.number:
            trial.set_user_attr(DROPPED, True)
            raise DroppedError
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
            candidate = make_candidate(self.config, index, genome, self.out_dir, lambda e, t: self._report(trial, e, t))
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
                raise TargetError(
                    f"objective.{key} = {target:g}: no network of this space is expected to meet it: the smallest "
                    f"takes {estimate.ms:.3g} ms ({estimate.source}): raise the target, or set check_target=false to "
                    "go on"
                )


def make_candidate(
    config: SearchConfig, index: int, genome: Genome, out_dir: Path, report: Callable[[int, float], None]
) -> Candidate:
    """Creates the candidate of a genome.

    Args:
        config: the search.
        index: candidate index.
        genome: a point of its space.
        out_dir: run folder.
        report: called with (epoch, top-1) after each epoch of the candidate's training.
    """
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
