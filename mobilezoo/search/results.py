"""Results of a search, computed from its study's trials: records, the front, model YAMLs, and the current status."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.config import Record, write_yaml
from mobilezoo.files import write_text
from mobilezoo.search.candidates import Candidates, all_trials
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.database import database_errors
from mobilezoo.search.engines.base import genome_of
from mobilezoo.search.kept import basis_of
from mobilezoo.search.networks import arch_strings, yaml_data
from mobilezoo.search.objective import undominated
from mobilezoo.search.records import RESULT_NAME, Figures, SearchResult, TrialRecord
from mobilezoo.search.storage import check_folder, place_of, read_study, writing_in

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Running(Record):
    """A trial that a worker evaluates now."""

    number: int
    worker: str
    since: str
    """Start of the trial, ISO 8601, in the worker's local time."""


class SearchStatus(Record):
    """State of a search and its workers."""

    name: str
    storage: str
    engine: str
    limit: int
    """Total number of trials of the search."""
    states: dict[str, int]
    """complete, pruned, failed, running, interrupted → trials."""
    seconds_per_trial: float | None
    """Median over complete trials."""
    best: TrialRecord | None
    running: tuple[Running, ...]


def remeasured_key(number: int) -> str:
    """Returns the study attribute that holds a front member's second measurement."""
    return f"remeasured {number}"


def record(config: SearchConfig, index: int, trial: FrozenTrial, again: dict[str, Any] | None = None) -> TrialRecord:
    """Converts a finished trial to its record.

    Args:
        config: the search.
        index: candidate index.
        trial: the finished trial.
        again: second measurement, device → LatencyEstimate as plain data.
    """
    attrs = trial.user_attrs
    point = config.space.point(genome_of(config.space.genes, trial.params)) if "genome" in attrs else None
    figures = Figures.parse(attrs["figures"]).model_dump() if "figures" in attrs else {"latency": {}}
    latency = list(figures.pop("latency").items())
    return TrialRecord.parse(
        {
            "number": index,
            "state": STATES[trial.state],
            "point": point.model_dump() if point else None,
            "arch": arch_strings(point) if point else (),
            "latency": latency[0][1] if latency else None,
            "elsewhere": dict(latency[1:]),
            "remeasured": again or {},
            **figures,
            **{key: attrs[key] for key in TrialRecord.model_fields if key in attrs},
        }
    )


def summary(config: SearchConfig, study: Study) -> SearchResult:
    """Computes the result of all finished trials, the front included; nothing is written.

    Args:
        config: the search.
        study: its study.
    """
    candidates, attrs = Candidates(all_trials(study)), study.user_attrs
    finished = candidates.finished()
    records = tuple(record(config, index, trial, attrs.get(remeasured_key(index))) for index, trial in finished)
    done = [r for r in records if r.state == "complete" and r.duplicate_of is None]
    front = [done[i].number for i in undominated(np.array([_costs(config, r) for r in done]))] if done else []
    best = max(done, key=lambda r: -math.inf if r.reward is None else r.reward, default=None)
    count = config.space.count()
    return SearchResult(
        name=config.name or "search",
        engine=config.engine,
        seed=config.seed,
        space_sha256=config.space.sha256,
        space_count=count if count < 2**53 else None,
        objective=config.objective,
        devices=config.devices,
        criteria=config.criteria,
        trials=records,
        front=tuple(front),
        best=best.number if best else None,
    )


def best_reward(study: Study) -> float:
    """Returns the highest reward of all complete trials, including other workers'; -inf where there are none."""
    candidates = Candidates(all_trials(study))
    finished = [trial for _, trial in candidates.finished() if trial.state == TrialState.COMPLETE]
    return max((float(trial.user_attrs["reward"]) for trial in finished), default=-math.inf)


def _costs(config: SearchConfig, trial: TrialRecord) -> list[float]:
    """Returns the values of the front's criteria, each to be minimized."""
    assert trial.top1 is not None
    assert trial.latency is not None
    latencies = [trial.latency.ms, *(estimate.ms for estimate in trial.elsewhere.values())]
    return [-trial.top1, *latencies, *(getattr(trial, name) for name in config.further)]


def save(config: SearchConfig, study: Study, out_dir: Path) -> SearchResult:
    """Writes `search.json` and the YAMLs of the front and the best network.

    Args:
        config: the search.
        study: its study.
        out_dir: run folder.

    Returns:
        The result as written.

    Raises:
        MobilezooError: a file cannot be written.
    """
    basis = basis_of(config, out_dir)  # first: what is added from here on makes the result old
    result = summary(config, study)
    name = config.name or out_dir.name
    files = [f"front/{name}_{number:04d}.yaml" for number in result.front]
    for number, file in zip(result.front, files, strict=True):
        _write_network(config, result.trial(number), out_dir / file)
    best = f"{name}_best.yaml" if result.best is not None else None
    if best is not None and result.best is not None:
        _write_network(config, result.trial(result.best), out_dir / best)
    result = result.model_copy(update={"name": name, "front_yaml": tuple(files), "best_yaml": best, "basis": basis})
    write_text(out_dir / RESULT_NAME, result.model_dump_json(indent=1) + "\n")
    for old in (out_dir / "front").glob("*.yaml"):  # last: until here the result before this one named them
        if f"front/{old.name}" not in files:
            old.unlink()
    return result


def current(config: SearchConfig, out_dir: Path) -> SearchResult:
    """Reads the study, writes the result so far as `save` does, and returns it; workers may run meanwhile.

    Args:
        config: the search.
        out_dir: run folder.

    Raises:
        ConfigError: there is no such search, or the folder holds another one.
        MobilezooError: the database cannot be used, or a file cannot be written.
    """
    check_folder(config, out_dir)
    with database_errors(place_of(config, out_dir)), writing_in(out_dir):
        return save(config, read_study(config, out_dir), out_dir)


def _write_network(config: SearchConfig, trial: TrialRecord, path: Path) -> None:
    assert trial.point is not None
    assert trial.latency is not None
    how = {
        "proxy": f"by the recipe {config.recipe!r}",
        "supernet": "with the weights it inherits from the supernet",
        "predictor": "as predicted from the supernet's scores",
    }
    start = "" if config.accuracy == "proxy" else f" checkpoint={path.with_suffix('.safetensors')}"
    header = [
        f"found by `mobilezoo search` in {config.name or 'search'}, trial {trial.number}",
        f"{trial.top1:.2f}% top-1 {how[config.accuracy]}, {trial.latency.ms:.3f} ms ({trial.latency.source})",
        " ".join(("mobilezoo train", config.recipe, *config.images, f"model={path}{start}")),
    ]
    write_yaml(path, yaml_data(config.space, trial.point), header)


def search_status(config: SearchConfig, folder: Path) -> SearchStatus:
    """Reads the current status of a search from its database; workers may run meanwhile.

    Args:
        config: the search.
        folder: run folder.

    Raises:
        ConfigError: there is no such search.
        MobilezooError: the database cannot be used.
    """
    with database_errors(place_of(config, folder)):
        study = read_study(config, folder)
        result, candidates = summary(config, study), Candidates(all_trials(study))
    states = {state: sum(r.state == state for r in result.trials) for state in STATES.values()}
    active = [trial for trial in candidates.valid_trials if trial.state == TrialState.RUNNING]
    seconds = [r.seconds for r in result.trials if r.state == "complete" and r.duplicate_of is None]
    return SearchStatus(
        name=result.name,
        storage=place_of(config, folder),
        engine=config.engine,
        limit=config.trials,
        states={**states, "running": len(active), "interrupted": len(candidates.missing())},
        seconds_per_trial=statistics.median(seconds) if seconds else None,
        best=result.trial(result.best) if result.best is not None else None,
        running=tuple(
            Running(
                number=candidates.candidate_index(t.number),
                worker=str(t.user_attrs.get("worker", "")),
                since=t.datetime_start.isoformat(timespec="seconds") if t.datetime_start else "",
            )
            for t in active
        ),
    )
