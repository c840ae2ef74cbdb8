"""Optuna's own samplers, seeded for every trial, so that a resumed search proposes the same as an unbroken one."""

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
    """Creates a tree-structured Parzen estimator over all genes at once; conditional genes form groups.

    Args:
        settings: seed and population.
        genes: not used: Optuna derives the space from the trials.
    """
    return ReseededSampler(
        settings.seed,
        lambda seed: optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=min(settings.population, 10)
        ),
    )


def nsga2(settings: EngineSettings, genes: GeneSpace) -> BaseSampler:
    """Creates NSGA-II, which optimizes the criteria themselves.

    Args:
        settings: seed and population.
        genes: not used: Optuna derives the space from the trials.
    """
    return ReseededSampler(
        settings.seed, lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=settings.population)
    )


def nsga3(settings: EngineSettings, genes: GeneSpace) -> BaseSampler:
    """Creates NSGA-III: as NSGA-II, spread over reference directions; for fronts of many criteria.

    Args:
        settings: seed and population.
        genes: not used: Optuna derives the space from the trials.
    """
    return ReseededSampler(
        settings.seed, lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=settings.population)
    )


class ReseededSampler(BaseSampler):
    """Delegates each trial to a new sampler, seeded from (seed, candidate index); implements Optuna's interface."""

    def __init__(self, seed: int, make: Callable[[int], BaseSampler]) -> None:
        self._seed = seed
        self._make = make
        self._inner: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the parameters that the sampler proposes together.

        Args:
            study: the search's study.
            trial: the new trial.
        """
        return self._at(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Proposes the parameters of a trial together.

        Args:
            study: the search's study.
            trial: the new trial.
            search_space: result of `infer_relative_search_space`.
        """
        return self._at(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Proposes a parameter that `sample_relative` left out.

        Args:
            study: the search's study.
            trial: the new trial.
            param_name: the gene.
            param_distribution: its choices.
        """
        return self._at(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Prepares the sampler for a trial.

        Args:
            study: the search's study.
            trial: the new trial.
        """
        inner = self._at(study, trial)
        inner.before_trial(study, trial)
        if trial.system_attrs.get("fixed_params"):
            # A queued trial has its choices already, but NSGA-II stores a trial's generation in `sample_relative`.
            inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Stores the sampler's state of a finished trial.

        Args:
            study: the search's study.
            trial: the finished trial.
            state: its state.
            values: its values; None unless it is complete.
        """
        self._at(study, trial).after_trial(study, trial, state, values)

    def _at(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if self._inner is None or self._inner[0] != trial.number:
            index = Candidates(all_trials(study)).candidate_index(trial.number)
            seed = int(np.random.SeedSequence([self._seed, index]).generate_state(1)[0])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._inner = (trial.number, self._make(seed))
        return self._inner[1]
