"""Search engines, each an Optuna sampler, selected by the key `engine`.

Every engine is resumable: a proposal depends on the seed, the candidate index and the finished trials before it, all of
which the study holds. No engine keeps a random state that a killed process would lose.
"""

from typing import TYPE_CHECKING

from mobilezoo.registry import Registry
from mobilezoo.search.engines.settings import Engine, EngineSettings, Goal
from mobilezoo.search.genes import GeneSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["ENGINES", "Engine", "EngineSettings", "Goal", "engines_for", "make_sampler"]

BOTH: tuple[Goal, ...] = ("reward", "front")
ENGINES: Registry[Engine] = Registry(
    "engine",
    "engines",
    {
        "bayesian": Engine(f"{__name__}.bayesian:BayesianSampler", BOTH),
        "evolution": Engine(f"{__name__}.evolution:EvolutionSampler", ("reward",)),
        "ppo": Engine(f"{__name__}.ppo:ControllerSampler", ("reward",)),
        "tpe": Engine(f"{__name__}.optuna_samplers:tpe", BOTH),
        "nsga2": Engine(f"{__name__}.optuna_samplers:nsga2", BOTH),
        "nsga3": Engine(f"{__name__}.optuna_samplers:nsga3", ("front",)),
        "random": Engine(f"{__name__}.random:RandomSampler", BOTH),
    },
    lambda found: isinstance(found, Engine),
    "a mobilezoo.search.engines.Engine",
)


def engines_for(goal: Goal) -> list[str]:
    """Lists the names of the engines that support a goal."""
    return [name for name, engine in ENGINES.load_all().items() if goal in engine.goals]


def make_sampler(engine: str, settings: EngineSettings, genes: GeneSpace) -> "BaseSampler":
    """Creates the sampler of an engine.

    Args:
        engine: name or place.
        settings: the search's settings for engines.
        genes: the search space.

    Raises:
        UnknownNameError: there is no engine of that name.
        ConfigError: the engine of a plugin cannot be loaded.
    """
    return ENGINES.load(engine).make(settings, genes)
