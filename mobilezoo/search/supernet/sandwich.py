"""Which networks learn from a batch: the sandwich rule (Yu and Huang, arXiv:1903.05134; BigNAS, arXiv:2003.11142).

The largest network learns from the labels; the smallest and a few random ones learn from the largest's answers
(in-place distillation). What has no order (block, attention, skip) is drawn anew for all of them, in the largest and
the smallest too: a choice that the largest always held would be trained far more often than its rivals, and win.
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
    """The genome whose sizes are all `pick` (max or min) of their choices.

    `fixed` sets genes by name; what has no order is drawn by `rng`, without one it is the first choice.
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
    """The largest network, `count` random ones, the smallest."""
    ends = [space.point(bound(space, pick, rng=rng)) for pick in (max, min)]
    return [ends[0], *(space.sample(rng) for _ in range(count)), ends[1]]
