"""Conditional categorical spaces: counting, enumeration, sampling, mutation and crossover.

A *gene* is a named choice; it may be active only while another gene holds certain values (a depthwise-separable block
has no expansion ratio). A *genome* maps every active gene to its value, so that two different genomes are always two
different points: counting, enumeration and the test for repeated points are exact.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from mobilezoo.errors import ConfigError

Value = str | int | float | bool
Genome = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Gene:
    """One choice of a space."""

    name: str
    choices: tuple[Value, ...]
    parent: str | None = None
    """The gene this one depends on; None where it is always active."""
    when: tuple[Value, ...] = ()
    """Values of `parent` for which this gene is active."""


class GeneSpace:
    """An ordered set of genes. Parents stand before their children; a gene has at most one parent."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        self.genes = tuple(genes)
        known: dict[str, Gene] = {}
        for gene in self.genes:
            _check_gene(gene, known)
            known[gene.name] = gene
        self._by_name = known
        self._draws: dict[tuple[str, Value | None], tuple[list[Value], list[float]]] = {}

    def gene(self, name: str) -> Gene:
        """Returns the gene of a name."""
        return self._by_name[name]

    @cached_property
    def free(self) -> tuple[Gene, ...]:
        """Genes with more than one choice."""
        return tuple(gene for gene in self.genes if len(gene.choices) > 1)

    def active(self, gene: Gene, genome: Mapping[str, Value]) -> bool:
        """Whether a gene is active in a genome.

        Args:
            gene: a gene of this space.
            genome: values of at least the genes before it.
        """
        return gene.parent is None or (gene.parent in genome and genome[gene.parent] in gene.when)

    def check(self, genome: Mapping[str, Value]) -> None:
        """Raises ConfigError unless exactly the active genes are set, each to one of its choices."""
        for gene in self.genes:
            if not self.active(gene, genome):
                if gene.name in genome:
                    raise ConfigError(
                        f"{gene.name} means nothing while {gene.parent} = {genome.get(gene.parent or '')!r}"
                    )
            elif gene.name not in genome:
                raise ConfigError(f"{gene.name} is not set: expected one of {list(gene.choices)}")
            elif genome[gene.name] not in gene.choices:
                raise ConfigError(f"{gene.name} = {genome[gene.name]!r}: expected one of {list(gene.choices)}")
        unknown = sorted(set(genome) - set(self._by_name))
        if unknown:
            raise ConfigError(f"the space has no {unknown[0]}")

    def key(self, genome: Mapping[str, Value]) -> tuple[Value, ...]:
        """Returns a hashable identity: the values of the active genes in gene order."""
        return tuple(genome[gene.name] for gene in self.genes if gene.name in genome)

    # ---- counting and enumeration

    def count(self) -> int:
        """Returns the exact number of points."""
        return math.prod(self._completions(gene) for gene in self.genes if gene.parent is None)

    def _completions(self, gene: Gene) -> int:
        """Counts the settings of a gene and of all genes that depend on it."""
        return sum(self._completions_of(gene, value) for value in gene.choices)

    def _completions_of(self, gene: Gene, value: Value) -> int:
        return math.prod(self._completions(child) for child in self._children(gene, value))

    def _children(self, gene: Gene, value: Value) -> list[Gene]:
        return [child for child in self.genes if child.parent == gene.name and value in child.when]

    def enumerate(self) -> Iterator[Genome]:
        """Generates every point once, in a fixed order; for small spaces, see `count`."""
        yield from self._complete({}, 0)

    def _complete(self, genome: Genome, index: int) -> Iterator[Genome]:
        """Generates all completions of the genes from `index` on; genes that are set keep their value."""
        if index == len(self.genes):
            yield dict(genome)
            return
        gene = self.genes[index]
        if gene.name in genome or not self.active(gene, genome):
            yield from self._complete(genome, index + 1)
            return
        for value in gene.choices:
            yield from self._complete({**genome, gene.name: value}, index + 1)

    # ---- random operations: all take an explicit generator and end after one pass over the genes

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draws a point uniformly over all points: a choice is weighted by the number of points that contain it."""
        return self._fill({}, rng)

    def _fill(self, genome: Mapping[str, Value], rng: np.random.Generator) -> Genome:
        """Keeps the set genes that are active and samples the missing ones, in gene order."""
        result: Genome = {}
        for gene in self.genes:
            if gene.parent is None or self.active(gene, result):
                kept = genome.get(gene.name)
                result[gene.name] = self._draw(gene, rng) if kept is None else kept
        return result

    def _draw(self, gene: Gene, rng: np.random.Generator, exclude: Value | None = None) -> Value:
        choices, cumulated = self._draws.get((gene.name, exclude)) or self._weigh(gene, exclude)
        return choices[bisect_right(cumulated, rng.random())]

    def _weigh(self, gene: Gene, exclude: Value | None) -> tuple[list[Value], list[float]]:
        """Returns choices and their cumulated shares of the points; cached, since engines draw thousands per trial."""
        choices = [value for value in gene.choices if value != exclude]
        points = list(accumulate(self._completions_of(gene, value) for value in choices))
        self._draws[gene.name, exclude] = choices, [count / points[-1] for count in points]
        return self._draws[gene.name, exclude]

    def mutate(self, genome: Mapping[str, Value], rng: np.random.Generator) -> Genome:
        """Changes one free gene to another value; genes that become active are sampled.

        Args:
            genome: a point.
            rng: source of randomness.

        Returns:
            Another point than `genome`.

        Raises:
            ConfigError: the space has a single point.
        """
        movable = [gene for gene in self.free if gene.name in genome]
        if not movable:
            raise ConfigError("the space has one point: there is nothing to mutate")
        gene = movable[int(rng.integers(len(movable)))]
        return self._fill({**genome, gene.name: self._draw(gene, rng, exclude=genome[gene.name])}, rng)

    def crossover(self, mother: Mapping[str, Value], father: Mapping[str, Value], rng: np.random.Generator) -> Genome:
        """Draws each gene from one of two parents, with equal probability where both have it.

        Args:
            mother: a point.
            father: a point.
            rng: source of randomness.

        Returns:
            A point of the space.
        """
        child: Genome = {}
        for gene in self.genes:
            if not self.active(gene, child):
                continue
            donors = [parent for parent in (mother, father) if gene.name in parent]
            # A gene's parent came from a genome in which that value was set, so at least that one has the gene.
            child[gene.name] = donors[int(rng.integers(len(donors)))][gene.name]
        return child

    def neighbors(self, genome: Mapping[str, Value]) -> Iterator[Genome]:
        """Generates the points that differ in one of the genes active in both; newly active genes take all values."""
        for gene in self.free:
            if gene.name not in genome:
                continue
            for value in gene.choices:
                if value != genome[gene.name]:
                    yield from self._complete(self._prune({**genome, gene.name: value}), 0)

    def _prune(self, genome: Genome) -> Genome:
        """Drops genes that are no longer active."""
        result: Genome = {}
        for gene in self.genes:
            if gene.name in genome and self.active(gene, result):
                result[gene.name] = genome[gene.name]
        return result


def _check_gene(gene: Gene, known: Mapping[str, Gene]) -> None:
    if not gene.choices:
        raise ConfigError(f"{gene.name}: no choices: the space is empty")
    if len(set(gene.choices)) != len(gene.choices):
        raise ConfigError(f"{gene.name}: a choice is listed twice in {list(gene.choices)}")
    if gene.name in known:
        raise ConfigError(f"{gene.name}: defined twice")
    if gene.parent is not None:
        if gene.parent not in known:
            raise ConfigError(f"{gene.name}: depends on {gene.parent}, which is not defined before it")
        if not set(gene.when) & set(known[gene.parent].choices):
            raise ConfigError(f"{gene.name}: never active: {gene.parent} is never one of {list(gene.when)}")
