"""The search loop: ask for a network, judge it, tell the study; every trial ends in a state.

Accuracy and latency are callables, so this file knows no trainer, exporter or device. The study lies in SQLite beside
the result: a search can be stopped at any moment, by Ctrl-C or SIGKILL, and goes on with the same command.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.artifacts import write_text
from mobilezoo.config import write_yaml
from mobilezoo.errors import ConfigError, DataError, MissingToolError, MobilezooError
from mobilezoo.search.engines.base import INTERRUPTED, genome_of
from mobilezoo.search.genes import Genome
from mobilezoo.search.networks import arch_strings, check_space, yaml_data
from mobilezoo.search.networks import model_config as to_model_config
from mobilezoo.search.objective import pareto_front
from mobilezoo.search.records import (
    RESULT_NAME,
    Candidate,
    Evaluate,
    Latency,
    LatencyEstimate,
    SearchConfig,
    SearchResult,
    TrialRecord,
)
from mobilezoo.search.storage import DATABASE, database_errors, only_search_in, open_study, recover, requeue

FATAL = (MissingToolError, DataError)
"""Faults of the set-up, not of a candidate: the search stops, and the trial runs again after the remedy."""

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def search(
    config: SearchConfig,
    evaluate: Evaluate,
    latency: Latency,
    out_dir: Path,
    trials: int | None = None,
    on_trial: Callable[[TrialRecord], None] | None = None,
) -> SearchResult:
    """Try networks until the study in `out_dir` holds `trials` finished ones (default: the config's number).

    Writes `study.db`, `search.json` and the YAMLs of the front and of the winner. Call it again with the same
    arguments to go on after a stop; what was running then is run again. Raises ConfigError for a study of another
    space, or a target that the smallest network misses (before anything is trained); MobilezooError for a database
    that cannot be used, or too many failures in a row.
    """
    check_space(config.space, config.name or "search")
    run = _Run(config, evaluate, latency, out_dir)
    with only_search_in(out_dir), _quiet_optuna(), database_errors(str(out_dir / DATABASE)):
        study = open_study(config, out_dir)
        recover(study)
        if config.check_target and not study.get_trials(deepcopy=False):
            _enqueue(study, config.space.genome(config.space.smallest()))
        try:
            while len(_counting(study)) < (config.trials if trials is None else trials):
                study.optimize(run.objective, n_trials=1, catch=(_CandidateError,))
                last = _counting(study)[-1]
                if on_trial is not None:
                    on_trial(_record(config, last))
                _stop_on_failures(config, study)
        finally:
            result = _save(config, study, out_dir)
    return result


class _CandidateError(Exception):
    """A candidate failed for a reason of its own; the reason is already in the trial."""


class _Run:
    """One call of `search`: what a trial needs besides the trial."""

    def __init__(self, config: SearchConfig, evaluate: Evaluate, latency: Latency, out_dir: Path) -> None:
        self.config = config
        self.evaluate = evaluate
        self.latency = latency
        self.out_dir = out_dir
        self.multi = config.goal == "front"

    def objective(self, trial: optuna.Trial) -> float | tuple[float, float]:
        """Judge one network; its figures and any reason to fail are kept as attributes of the trial."""
        began = time.monotonic()
        trial.set_user_attr("engine", self.config.engine)
        try:
            genome = self._suggest(trial)
            top1, estimate = self._judge(trial, genome)
        except (KeyboardInterrupt, *FATAL):
            requeue(trial.study, trial)
            raise
        except optuna.TrialPruned as error:
            trial.set_user_attr("reason", str(error) or "pruned")
            raise
        except _TargetError:
            raise
        except Exception as error:
            trial.set_user_attr("reason", _one_line(error))
            raise _CandidateError from error
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
        return (top1, estimate.ms) if self.multi else self.config.objective(top1, estimate.ms)

    def _suggest(self, trial: optuna.Trial) -> Genome:
        genes, genome = self.config.space.genes, Genome()
        for gene in genes.genes:
            if genes.active(gene, genome):
                few = len(gene.choices) == 1
                genome[gene.name] = gene.choices[0] if few else trial.suggest_categorical(gene.name, gene.choices)
        trial.set_user_attr("genome", genome)
        return genome

    def _judge(self, trial: optuna.Trial, genome: Genome) -> tuple[float, LatencyEstimate]:
        """(top-1, latency) of a network: an earlier trial's figures, or latency first and then accuracy."""
        earlier = _same_network(trial, genome)
        if earlier is not None:
            estimate = LatencyEstimate.parse(earlier.user_attrs["latency"])
            top1 = float(earlier.user_attrs["top1"])
            trial.set_user_attr("duplicate_of", earlier.number)
        else:
            candidate = self._candidate(trial, genome)
            estimate = self.latency(candidate)
            trial.set_user_attr("latency", estimate.model_dump())
            self._check_target(trial, estimate)
            top1 = float(self.evaluate(candidate))
            if not math.isfinite(top1):
                raise MobilezooError(f"accuracy is {top1}: the training diverged")
        trial.set_user_attr("latency", estimate.model_dump())
        trial.set_user_attr("top1", top1)
        trial.set_user_attr("reward", self.config.objective(top1, estimate.ms))
        return top1, estimate

    def _candidate(self, trial: optuna.Trial, genome: Genome) -> Candidate:
        point = self.config.space.point(genome)

        def report(epoch: int, top1: float) -> None:
            if not self.multi:  # Optuna keeps intermediate values, and prunes by them, for one objective only
                trial.report(top1, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"stopped after epoch {epoch} at {top1:.1f}%")

        return Candidate(
            number=trial.number,
            point=point,
            config=to_model_config(self.config.space, point, f"candidate_{trial.number:04d}"),
            folder=self.out_dir / "trials" / f"{trial.number:04d}",
            report=report,
        )

    def _check_target(self, trial: optuna.Trial, estimate: LatencyEstimate) -> None:
        target = self.config.objective.target_ms
        if trial.user_attrs.get("origin") == "smallest" and estimate.ms > target:
            trial.set_user_attr("reason", f"misses the target of {target:g} ms")
            raise _TargetError(
                f"objective.target_ms = {target:g}: no network of this space is expected to meet it: the smallest "
                f"takes {estimate.ms:.3g} ms ({estimate.source}): raise the target, or set check_target=false to go on"
            )


class _TargetError(ConfigError):
    """The smallest network misses the target."""


def _enqueue(study: Study, genome: Genome) -> None:
    study.enqueue_trial(genome, user_attrs={"origin": "smallest"})


def _same_network(trial: optuna.Trial, genome: Genome) -> FrozenTrial | None:
    done = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((t for t in done if t.user_attrs.get("genome") == genome and "duplicate_of" not in t.user_attrs), None)


def _counting(study: Study) -> list[FrozenTrial]:
    """Finished trials in order, without those that were interrupted and run again."""
    finished = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [trial for trial in finished if INTERRUPTED not in trial.user_attrs]


def _stop_on_failures(config: SearchConfig, study: Study) -> None:
    last = _counting(study)[-config.max_failures :]
    if len(last) == config.max_failures and all(trial.state == TrialState.FAIL for trial in last):
        reason = last[-1].user_attrs.get("reason", "unknown")
        raise MobilezooError(f"{config.max_failures} networks failed in a row, the last one: {reason}")


def _record(config: SearchConfig, trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    point = config.space.point(genome_of(config.space.genes, trial.params)) if "genome" in attrs else None
    return TrialRecord.parse(
        {
            "number": trial.number,
            "state": STATES[trial.state],
            "point": point.model_dump() if point else None,
            "arch": arch_strings(point) if point else (),
            "curve": sorted(trial.intermediate_values.items()),
            **{key: attrs[key] for key in TrialRecord.model_fields if key in attrs},
        }
    )


def _save(config: SearchConfig, study: Study, out_dir: Path) -> SearchResult:
    """Write the result and the YAMLs of its front; raises like `write_text`."""
    records = tuple(_record(config, trial) for trial in _counting(study))
    done = [r for r in records if r.state == "complete" and r.duplicate_of is None]
    chosen = pareto_front([r.top1 or 0.0 for r in done], [r.latency.ms if r.latency else math.inf for r in done])
    front = [done[i] for i in chosen]
    for old in (out_dir / "front").glob("*.yaml"):
        old.unlink()
    best = max(done, key=lambda r: -math.inf if r.reward is None else r.reward, default=None)
    name = config.name or out_dir.name
    count = config.space.count()
    result = SearchResult(
        name=name,
        engine=config.engine,
        seed=config.seed,
        space_sha256=config.space.sha256,
        space_count=count if count < 2**53 else None,
        objective=config.objective,
        trials=records,
        front=tuple(r.number for r in front),
        best=best.number if best else None,
        front_yaml=tuple(_write_network(config, r, out_dir, f"front/{name}_{r.number:04d}.yaml") for r in front),
        best_yaml=_write_network(config, best, out_dir, f"{name}_best.yaml") if best else None,
    )
    write_text(out_dir / RESULT_NAME, result.model_dump_json(indent=1) + "\n")
    return result


def _write_network(config: SearchConfig, trial: TrialRecord, out_dir: Path, name: str) -> str:
    assert trial.point is not None
    assert trial.latency is not None
    path = out_dir / name
    header = [
        f"found by `mobilezoo search` in {config.name or out_dir.name}, trial {trial.number}",
        f"{trial.top1:.2f}% top-1 by the recipe {config.recipe!r}, {trial.latency.ms:.3f} ms ({trial.latency.source})",
        f"mobilezoo train {config.recipe} model={path}",
    ]
    write_yaml(path, yaml_data(config.space, trial.point), header)
    return name


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if isinstance(error, MobilezooError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 300 else text[:299] + "…"


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's log lines off while the search runs: trials are reported by `on_trial`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
