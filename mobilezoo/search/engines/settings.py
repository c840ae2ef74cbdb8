"""What an engine is, and what it is told of a search."""

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
    """Networks kept alive, or tried before a model of them is trusted."""
    tournament: int
    """Networks of which a parent is picked."""
    objective: Objective


class Engine(NamedTuple):
    """A way to propose networks: an Optuna sampler, and what it can seek."""

    sampler: "str | Callable[[EngineSettings, GeneSpace], BaseSampler]"
    """What makes the sampler, or its place, imported when a search begins."""
    goals: tuple[Goal, ...]
    """reward: one number is raised; front: all criteria are traded."""

    def make(self, settings: EngineSettings, genes: GeneSpace) -> "BaseSampler":
        """The sampler of one search."""
        made = resolve(self.sampler) if isinstance(self.sampler, str) else self.sampler
        return made(settings, genes)  # type: ignore[operator]
