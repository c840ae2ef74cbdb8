"""The sandwich rule: networks that are trained on a batch (Yu and Huang, arXiv:1903.05134; BigNAS, arXiv:2003.11142).

The largest network is trained on the labels; the smallest and a few random ones on the largest's outputs (in-place
distillation). Unordered choices (block, attention, skip) are drawn at random for all of them, also for the largest and
the smallest: a value that the largest always had would be trained far more often than the others.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mobilezoo.search.genes import Genome, Value
from mobilezoo.search.space import Point, Space

SIZES = ("resolution", "kernel", "expansion", "width", "depth")
"""Genes with an order; the others only differ."""


def bound(
    space: Space,
    pick: Callable[[Any], Any],
    fixed: Mapping[str, Value] | None = None,
    rng: np.random.Generator | None = None,
) -> Genome:
    """Builds the genome of the largest or the smallest network.

    Args:
        space: the space.
        pick: max or min, applied to the choices of every ordered gene.
        fixed: values of genes by name.
        rng: draws the unordered genes; None takes the first choice of each.
    """
    fixed, genome = fixed or {}, Genome()
    for gene in space.genes.genes:
        if not space.genes.active(gene, genome):
            continue
        if gene.name in fixed:
            genome[gene.name] = fixed[gene.name]
        elif gene.name.rpartition(".")[2] in SIZES:
            genome[gene.name] = pick(gene.choices)
        else:
            genome[gene.name] = gene.choices[0 if rng is None else int(rng.integers(len(gene.choices)))]
    return genome


def sandwich(space: Space, count: int, rng: np.random.Generator) -> list[Point]:
    """Draws the networks of one batch.

    Args:
        space: the space.
        count: number of random networks.
        rng: source of randomness.

    Returns:
        The largest network, `count` random ones, the smallest.
    """
    ends = [space.point(bound(space, pick, rng=rng)) for pick in (max, min)]
    return [ends[0], *(space.sample(rng) for _ in range(count)), ends[1]]
