"""Importance of the choices of a search: the share of the variance that each explains."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mobilezoo.errors import require
from mobilezoo.search.records import SearchResult, TrialRecord

MIN_TRIALS = 10
"""Fewest different networks that importance is computed from."""
MAX_TRIALS = 300
"""Of more networks every second, third, … is used: the cost grows with the cube of their number."""
SHOWN = 12
VALUES: dict[str, Callable[[TrialRecord], float | None]] = {
    "reward": lambda trial: trial.reward,
    "top-1": lambda trial: trial.top1,
    "latency": lambda trial: trial.latency.ms if trial.latency else None,
}


def importances(search: SearchResult) -> dict[str, dict[str, float]]:
    """Choice → {reward, top-1, latency → share of its variance, 0..1}, the most important first.

    Functional ANOVA of a Gaussian process over the finished networks, choices that do not apply counting as a value
    of their own. Empty for less than `MIN_TRIALS` networks. Raises MissingToolError without scipy.
    """
    done = [t for t in search.trials if t.state == "complete" and t.duplicate_of is None and t.point]
    if len(done) < MIN_TRIALS:
        return {}
    require("scipy", "search")
    done = done[:: math.ceil(len(done) / MAX_TRIALS)]
    names, codes = _codes([choices(trial) for trial in done])
    shares = {word: _shares(codes, np.array([value(t) or 0.0 for t in done])) for word, value in VALUES.items()}
    order = np.argsort(-shares["reward"], kind="stable")[:SHOWN]
    return {names[i]: {word: float(found[i]) for word, found in shares.items()} for i in order}


def choices(trial: TrialRecord) -> dict[str, str]:
    """The network as flat words: `stage 2 kernel` → `5`."""
    assert trial.point is not None
    words = {"resolution": str(trial.point.resolution)}
    for number, stage in enumerate(trial.point.stages, start=1):
        for field, value in stage.model_dump(exclude={"stride"}).items():
            words[f"stage {number} {field}"] = f"{value:g}" if isinstance(value, float) else str(value)
    return words


def _codes(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], np.ndarray]:
    """(choices that vary, their values as integers [rows, choices])."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    varied = {
        name: np.unique(column, return_inverse=True)[1] for name, column in columns.items() if len(set(column)) > 1
    }
    return list(varied), np.array(list(varied.values()), dtype=np.int16).reshape(len(varied), len(rows)).T


def _shares(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Main effects of the columns of `codes` on `values`; none where all values are the same."""
    from mobilezoo.search.engines.surrogate import GaussianProcess

    return GaussianProcess(codes, values).main_effects() if np.ptp(values) else np.zeros(codes.shape[1])
