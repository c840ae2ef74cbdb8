"""Optuna's own samplers, seeded anew for every trial so that a resumed study goes on as an unbroken one."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.search.candidates import Candidates, all_trials
from mobilezoo.search.engines.settings import EngineSettings
from mobilezoo.search.genes import GeneSpace


def tpe(settings: EngineSettings, genes: GeneSpace) -> BaseSampler:
    """Tree-structured Parzen estimator over all genes at once; conditional genes form groups."""
    return ReseededSampler(
        settings.seed,
        lambda seed: optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=min(settings.population, 10)
        ),
    )


def nsga2(settings: EngineSettings, genes: GeneSpace) -> BaseSampler:
    """NSGA-II on (top-1, latency): the front itself is the goal, not a reward."""
    return ReseededSampler(
        settings.seed, lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=settings.population)
    )


def nsga3(settings: EngineSettings, genes: GeneSpace) -> BaseSampler:
    """NSGA-III: as NSGA-II, spread over reference directions; for fronts of many criteria."""
    return ReseededSampler(
        settings.seed, lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=settings.population)
    )


class ReseededSampler(BaseSampler):
    """Delegates each trial to a new sampler, seeded from (seed, candidate index)."""

    def __init__(self, seed: int, make: Callable[[int], BaseSampler]) -> None:
        self._seed = seed
        self._make = make
        self._inner: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._at(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._at(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._at(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        inner = self._at(study, trial)
        inner.before_trial(study, trial)
        if trial.system_attrs.get("fixed_params"):
            # An enqueued trial never asks for its choices, and NSGA-II notes a trial's generation when asked.
            inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._at(study, trial).after_trial(study, trial, state, values)

    def _at(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if self._inner is None or self._inner[0] != trial.number:
            index = Candidates(all_trials(study)).candidate_index(trial.number)
            seed = int(np.random.SeedSequence([self._seed, index]).generate_state(1)[0])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._inner = (trial.number, self._make(seed))
        return self._inner[1]
