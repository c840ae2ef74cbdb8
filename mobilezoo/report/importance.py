"""Which choices of a search mattered: the share of the variance that each explains, by Optuna's evaluators."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mobilezoo.search.records import SearchResult, TrialRecord

MIN_TRIALS = 10
"""Fewer different networks say nothing about importance."""
SHOWN = 12
VALUES: dict[str, Callable[[TrialRecord], float | None]] = {
    "reward": lambda trial: trial.reward,
    "top-1": lambda trial: trial.top1,
    "latency": lambda trial: trial.latency.ms if trial.latency else None,
}


def importances(search: SearchResult) -> dict[str, dict[str, float]]:
    """Choice → {reward, top-1, latency → share of its variance, 0..1}, the most important first.

    fANOVA (Hutter et al. 2014, ICML) over the finished networks, choices that do not apply counting as a value of
    their own. Empty for less than `MIN_TRIALS` networks. Raises MissingToolError without optuna.
    """
    from mobilezoo.errors import require

    done = [t for t in search.trials if t.state == "complete" and t.duplicate_of is None and t.point]
    if len(done) < MIN_TRIALS:
        return {}
    require("optuna", "search")
    rows = [choices(trial) for trial in done]
    varied = [name for name in rows[0] if len({row[name] for row in rows}) > 1]
    shares = {word: _shares(rows, varied, [value(t) or 0.0 for t in done]) for word, value in VALUES.items()}
    order = sorted(varied, key=lambda name: -shares["reward"].get(name, 0.0))[:SHOWN]
    return {name: {word: found.get(name, 0.0) for word, found in shares.items()} for name in order}


def choices(trial: TrialRecord) -> dict[str, str]:
    """The network as flat words: `stage 2 kernel` → `5`."""
    assert trial.point is not None
    words = {"resolution": str(trial.point.resolution)}
    for number, stage in enumerate(trial.point.stages, start=1):
        for field, value in stage.model_dump(exclude={"stride"}).items():
            words[f"stage {number} {field}"] = f"{value:g}" if isinstance(value, float) else str(value)
    return words


def _shares(rows: Sequence[Mapping[str, str]], names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    import optuna

    if not names or len(set(values)) < 2:
        return {}
    space: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(sorted({row[name] for row in rows})) for name in names
    }
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize")
            for row, value in zip(rows, values, strict=True):
                params = {name: row[name] for name in names}
                study.add_trial(optuna.create_trial(params=params, distributions=space, value=value))
            evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=24, seed=0)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
            return {name: float(share) for name, share in found.items()}
    finally:
        optuna.logging.set_verbosity(before)
