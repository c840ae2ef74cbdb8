"""What the engines share: the history they may look at, and the random generator of a trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.search.genes import GeneSpace, Genome, Value

if TYPE_CHECKING:
    from mobilezoo.search.records import SearchConfig

INTERRUPTED = "interrupted"
"""User attribute of a trial that a stopped process left behind and that runs again under a later number."""

MAX_REDRAWS = 50
"""How often a proposal that was tried before is drawn again."""


@dataclass(frozen=True)
class Seen:
    """A finished trial as an engine sees it."""

    number: int
    genome: Genome
    reward: float | None
    """None for a failed or pruned trial, like the next two."""
    top1: float | None = None
    latency_ms: float | None = None


def place(trials: Sequence[FrozenTrial], number: int) -> int:
    """The trial's place among those that count: its number, less the interrupted trials before it."""
    return number - sum(INTERRUPTED in t.user_attrs for t in trials if t.number < number)


def trial_rng(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, index])


def genome_of(genes: GeneSpace, params: Mapping[str, Any]) -> Genome:
    """The genome of a trial's parameters, in which genes with one choice do not appear."""
    genome: Genome = {}
    for gene in genes.genes:
        if genes.active(gene, genome):
            genome[gene.name] = params[gene.name] if len(gene.choices) > 1 else gene.choices[0]
    return genome


class GenomeSampler(BaseSampler):
    """A sampler that proposes whole genomes: subclasses write `propose`."""

    def __init__(self, config: "SearchConfig", genes: GeneSpace) -> None:
        self.config = config
        self.genes = genes

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        """The next point, given the finished trials in order."""
        raise NotImplementedError

    def fresh(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        """`propose`, drawn again (a bounded number of times) while it proposes what was tried before."""
        seen = {self.genes.key(trial.genome) for trial in history}
        genome = self.propose(history, rng)
        for _ in range(MAX_REDRAWS):
            if self.genes.key(genome) not in seen:
                break
            genome = self.propose(history, rng)
        return genome

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {gene.name: CategoricalDistribution(gene.choices) for gene in self.genes.free}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = study.get_trials(deepcopy=False)
        history = self._history(trials, trial.number)
        genome = self.fresh(history, trial_rng(self.config.seed, place(trials, trial.number)))
        return {name: value for name, value in genome.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Value:
        raise AssertionError(f"{param_name} is active but was not proposed")

    def _history(self, trials: Sequence[FrozenTrial], before: int) -> list[Seen]:
        seen = []
        for trial in trials:
            if trial.number >= before or not trial.state.is_finished() or INTERRUPTED in trial.user_attrs:
                continue
            if "genome" not in trial.user_attrs:
                continue
            attrs, genome = trial.user_attrs, dict(trial.user_attrs["genome"])
            if trial.state == TrialState.COMPLETE:
                seen.append(Seen(trial.number, genome, attrs["reward"], attrs["top1"], attrs["latency"]["ms"]))
            else:
                seen.append(Seen(trial.number, genome, None))
        return seen
