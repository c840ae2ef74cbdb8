"""Base class of the engines: the history of trials, and the random generator of a candidate."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.search.candidates import Candidates, all_trials
from mobilezoo.search.engines.settings import EngineSettings
from mobilezoo.search.genes import GeneSpace, Genome, Value

MAX_REDRAWS = 50
"""Upper limit of redraws of a proposal that was tried before."""


@dataclass(frozen=True)
class Seen:
    """A trial, reduced to the values that an engine uses."""

    number: int
    """Optuna's trial number."""
    genome: Genome
    reward: float | None
    """None for a trial that failed, was pruned or is running, like the next two."""
    top1: float | None = None
    latency_ms: float | None = None
    traded: tuple[float, ...] = ()
    """Values of the front's criteria, in the order of `SearchConfig.criteria`; empty where the goal is a reward."""


def trial_rng(seed: int, index: int) -> np.random.Generator:
    """Creates the random generator of a candidate.

    Args:
        seed: the search's.
        index: candidate index.
    """
    return np.random.default_rng([seed, index])


def genome_of(genes: GeneSpace, params: Mapping[str, Any]) -> Genome:
    """Converts a trial's parameters to a genome.

    Args:
        genes: the search space.
        params: values of the active genes with more than one choice.

    Returns:
        Values of all active genes.
    """
    genome: Genome = {}
    for gene in genes.genes:
        if genes.active(gene, genome):
            genome[gene.name] = params[gene.name] if len(gene.choices) > 1 else gene.choices[0]
    return genome


class GenomeSampler(BaseSampler):
    """A sampler that proposes whole genomes; subclasses implement `propose`."""

    def __init__(self, settings: EngineSettings, genes: GeneSpace) -> None:
        self.settings = settings
        self.genes = genes

    @abstractmethod
    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        """Proposes the next point.

        Args:
            history: earlier trials in order, running and failed ones included.
            rng: generator of this candidate.
        """

    def at(self, index: int, history: list[Seen]) -> Genome:
        """Returns the genome of a candidate.

        Args:
            index: candidate index.
            history: earlier trials in order.
        """
        return self.fresh(history, trial_rng(self.settings.seed, index))

    def fresh(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        """Calls `propose` until it returns a point that was not tried before, at most `MAX_REDRAWS` times more.

        Args:
            history: earlier trials in order.
            rng: generator of this candidate.
        """
        seen = {self.genes.key(trial.genome) for trial in history}
        genome = self.propose(history, rng)
        for _ in range(MAX_REDRAWS):
            if self.genes.key(genome) not in seen:
                break
            genome = self.propose(history, rng)
        return genome

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns all genes with more than one choice (Optuna's interface).

        Args:
            study: not used: the space is fixed.
            trial: not used.
        """
        return {gene.name: CategoricalDistribution(gene.choices) for gene in self.genes.free}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Proposes the parameters of a trial (Optuna's interface).

        Args:
            study: the search's study.
            trial: the new trial.
            search_space: parameters that the proposal may contain.
        """
        candidates = Candidates(all_trials(study))
        genome = self.at(candidates.candidate_index(trial.number), self._history(candidates, trial.number))
        return {name: value for name, value in genome.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Value:
        """Never called by Optuna, since `sample_relative` proposes all active genes.

        Args:
            study: the search's study.
            trial: the new trial.
            param_name: the gene.
            param_distribution: its choices.

        Raises:
            AssertionError: always.
        """
        raise AssertionError(f"{param_name} is active but was not proposed")

    def _history(self, candidates: Candidates, before: int) -> list[Seen]:
        seen = []
        for trial in candidates.valid_trials:
            if trial.number >= before or "genome" not in trial.user_attrs:
                continue
            attrs, genome = trial.user_attrs, dict(trial.user_attrs["genome"])
            if trial.state == TrialState.COMPLETE:
                traded = tuple(trial.values) if self.settings.goal == "front" else ()
                seen.append(Seen(trial.number, genome, attrs["reward"], attrs["top1"], attrs["latency_ms"], traded))
            else:
                seen.append(Seen(trial.number, genome, None))
        return seen
