"""Regularized evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1): the oldest network dies, not the worst."""

import numpy as np

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.genes import Genome


class EvolutionSampler(GenomeSampler):
    """Draws the first population at random, then mutates the best of a random tournament among the youngest."""

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        finished = [trial for trial in history if trial.reward is not None]
        if len(finished) < self.settings.population:
            return self.genes.sample(rng)
        alive = finished[-self.settings.population :]
        chosen = rng.choice(len(alive), size=min(self.settings.tournament, len(alive)), replace=False)
        parent = max((alive[int(i)] for i in chosen), key=lambda trial: trial.reward or 0.0)
        return self.genes.mutate(parent.genome, rng)
