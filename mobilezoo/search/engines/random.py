"""Random search: points drawn uniformly from the space."""

import numpy as np

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.genes import Genome


class RandomSampler(GenomeSampler):
    """Uniform over points, without repeats while the bounded redraws find new ones."""

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        return self.genes.sample(rng)
