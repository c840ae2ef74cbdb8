"""Definition of an engine, and the settings of a search that engines use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from mobilezoo.plugins import resolve
from mobilezoo.search.genes import GeneSpace
from mobilezoo.search.objective import Objective

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Goal = Literal["reward", "front"]


class EngineSettings(NamedTuple):
    """The part of a search config that its engine needs."""

    seed: int
    goal: Goal
    population: int
    """Networks kept alive by evolution and NSGA; random networks before a model is fitted, by bayesian and tpe."""
    tournament: int
    """Networks from which evolution selects a parent."""
    objective: Objective


class Engine(NamedTuple):
    """A search algorithm: an Optuna sampler and the goals it supports."""

    sampler: "str | Callable[[EngineSettings, GeneSpace], BaseSampler]"
    """Factory of the sampler, or its place, imported when a search begins."""
    goals: tuple[Goal, ...]
    """reward: maximize one number; front: find the Pareto front of all criteria."""

    def make(self, settings: EngineSettings, genes: GeneSpace) -> "BaseSampler":
        """Creates the sampler of a search.

        Args:
            settings: the search's settings for engines.
            genes: the search space.
        """
        made = resolve(self.sampler) if isinstance(self.sampler, str) else self.sampler
        return made(settings, genes)  # type: ignore[operator]
