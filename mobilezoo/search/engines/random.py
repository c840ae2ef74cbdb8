"""Random search: points drawn uniformly from the space."""

import numpy as np

from mobilezoo.search.engines.base import GenomeSampler, Seen, trial_rng
from mobilezoo.search.engines.settings import EngineSettings
from mobilezoo.search.genes import GeneSpace, Genome


class RandomSampler(GenomeSampler):
    """Uniform over points, without repeats while the bounded redraws find new ones.

    A point follows from the seed and its index alone, so that any number of workers try the same networks.
    """

    def __init__(self, settings: EngineSettings, genes: GeneSpace) -> None:
        super().__init__(settings, genes)
        self._drawn: list[Seen] = []

    def at(self, index: int, history: list[Seen]) -> Genome:
        for number in range(len(self._drawn), index + 1):
            self._drawn.append(Seen(number, self.fresh(self._drawn, trial_rng(self.settings.seed, number)), None))
        return self._drawn[index].genome

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        return self.genes.sample(rng)
