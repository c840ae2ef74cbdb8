"""Search engines, each an Optuna sampler; one flag, `engine`, names it.

Every engine is resumable: what it proposes for a trial depends on the seed, the trial's place and the finished trials
before it, all of which the study holds. None keeps a random state that a killed process would lose.
"""

import importlib
from typing import TYPE_CHECKING

from mobilezoo.errors import UnknownNameError
from mobilezoo.search.genes import GeneSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from mobilezoo.search.records import SearchConfig

ENGINES = {
    "random": "mobilezoo.search.engines.random:RandomSampler",
    "evolution": "mobilezoo.search.engines.evolution:EvolutionSampler",
    "guided": "mobilezoo.search.engines.guided:GuidedSampler",
    "ppo": "mobilezoo.search.engines.ppo:ControllerSampler",
    "tpe": "mobilezoo.search.engines.optuna_samplers:tpe",
    "nsga2": "mobilezoo.search.engines.optuna_samplers:nsga2",
    "nsga3": "mobilezoo.search.engines.optuna_samplers:nsga3",
}

REWARD_ENGINES = ("guided", "evolution", "ppo", "tpe", "nsga2", "random")
"""Engines that can seek the highest reward."""
FRONT_ENGINES = ("guided", "tpe", "nsga2", "nsga3", "random")
"""Engines that can seek the whole front of accuracy, latencies and sizes."""


def make_sampler(config: "SearchConfig", genes: GeneSpace) -> "BaseSampler":
    """The sampler that `config.engine` names."""
    if config.engine not in ENGINES:
        raise UnknownNameError("engine", config.engine, ENGINES)
    module, _, name = ENGINES[config.engine].partition(":")
    sampler: BaseSampler = getattr(importlib.import_module(module), name)(config, genes)
    return sampler
