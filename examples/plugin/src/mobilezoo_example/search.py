"""A search engine and a reward."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from mobilezoo.search.engines import Engine
from mobilezoo.search.engines.base import GenomeSampler, Seen, genome_of
from mobilezoo.search.genes import Genome
from mobilezoo.search.objective import Objective


class HaltonSampler(GenomeSampler):
    """Halton's sequence over the choices of a space, more even than random draws (Halton 1960).

    A point follows from the seed and its index alone, so that a resumed search goes on as an unbroken one.
    """

    def at(self, place: int, history: list[Seen]) -> Genome:
        genes = self.genes.genes
        sequence = qmc.Halton(len(genes), seed=self.settings.seed).fast_forward(place).random()[0]
        chosen = {gene.name: gene.choices[int(u * len(gene.choices))] for gene, u in zip(genes, sequence, strict=True)}
        return genome_of(self.genes, chosen)

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        return self.at(len(history), history)


HALTON = Engine(HaltonSampler, ("reward", "front"))


def within(accuracy: NDArray[np.float64], ratio: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """Accuracy of what is within the target, nothing for the rest; `ratio` is latency over the target."""
    return np.where(ratio <= 1, accuracy, 0.0)
