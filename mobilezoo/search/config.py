"""Config of a search: one YAML in configs/search/."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mobilezoo.config import Record, Words, listed
from mobilezoo.search.engines import ENGINES, EngineSettings, Goal, engines_for
from mobilezoo.search.objective import Objective
from mobilezoo.search.space import Space
from mobilezoo.search.supernet.settings import SupernetSettings

Accuracy = Literal["proxy", "supernet", "predictor"]
Further = Literal["size_mb", "memory_mb"]
IMAGE_KEYS = ("data.source", "data.root", "data.train_split", "data.val_split", "data.num_classes")


class SearchConfig(Record):
    """One YAML in configs/search/."""

    name: str | None = Field(default=None, description="run folder below `runs/`; null takes the file's name")
    space: Space
    objective: Objective
    engine: str = Field(
        default="bayesian", description="bayesian, evolution, tpe, nsga2, nsga3, ppo, random, or your own"
    )
    goal: Goal = Field(default="reward", description="reward: one network; front: all that no other dominates")
    further: tuple[Further, ...] = Field(
        default=(), description="with goal=front, also kept small: size_mb of the file, memory_mb at its peak"
    )
    trials: int = Field(default=50, gt=0, description="networks tried in all, those of earlier runs included")
    seed: int = Field(default=0, ge=0, description="of what the engine proposes")
    population: int = Field(default=16, ge=2, description="networks kept alive by evolution, nsga2 and nsga3")
    tournament: int = Field(default=4, ge=1, description="networks of which evolution picks a parent")
    check_target: bool = Field(
        default=True, description="begin with the smallest network; stop before training when it misses the target"
    )
    max_failures: int = Field(default=5, gt=0, description="stop when this many networks fail in a row")
    recipe: str = Field(description="training config (name or path) that gives a candidate its accuracy")
    recipe_overrides: tuple[str, ...] = Field(
        default=(), description="dotted overrides of it: train.epochs=5 (on the command line: simply add them)"
    )
    accuracy: Accuracy = Field(
        default="proxy",
        description="proxy: the recipe trains each network; supernet: it trains one network that holds all; "
        "predictor: learned from the supernet's scores",
    )
    supernet: SupernetSettings = SupernetSettings()
    pruner: Literal["none", "median", "hyperband", "sha"] = Field(
        default="none", description="ends trainings that lag behind: Optuna's pruner on the reward after each epoch"
    )
    final_recipe: str | None = Field(
        default=None,
        description="training config of `search finetune`; null takes `recipe` without its overrides but the images",
    )
    target: str = Field(default="litert", description="export target whose file is timed")
    devices: tuple[str, ...] = Field(
        default=("host",), min_length=1, description="device configs (names or paths) that time it; one or several"
    )
    estimator: str | None = Field(
        default=None,
        description="a table or predictor (JSON of `mobilezoo latency`) in place of the device",
    )
    on_device_lost: Literal["stop", "wait", "estimate"] = Field(
        default="stop", description="a device disappears: stop, wait for it, or take `fallback` until it is back"
    )
    device_wait_min: float = Field(default=60, gt=0, description="minutes a lost device is waited for before stopping")
    fallback: str | None = Field(default=None, description="the table or predictor of on_device_lost=estimate")
    remeasure: bool = Field(default=True, description="measure the front once more at the end; both values are kept")
    storage: str | None = Field(
        default=None,
        description="database of many workers: postgresql+psycopg://USER@HOST/DB; null is SQLite in the run folder",
    )
    heartbeat_s: int = Field(
        default=60, gt=0, description="seconds between signs of life of a worker; silent for three, it counts as dead"
    )

    @field_validator("devices", "further", mode="before", json_schema_input_type=Words)
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return listed(value)

    @property
    def images(self) -> tuple[str, ...]:
        """Overrides of the recipe that select the images; they apply to any training of the search's networks."""
        return tuple(item for item in self.recipe_overrides if item.partition("=")[0] in IMAGE_KEYS)

    @property
    def engine_settings(self) -> EngineSettings:
        """Settings of the engine."""
        return EngineSettings(self.seed, self.goal, self.population, self.tournament, self.objective)

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the front's criteria: top-1, the latency on each device, and those of `further`."""
        return ("top1", *(f"{device}_ms" for device in self.devices), *self.further)

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.goal not in ENGINES.load(ENGINES.known(self.engine)).goals:
            names = ", ".join(engines_for(self.goal))
            raise ValueError(f"an engine that seeks a {self.goal}: {names}, got {self.engine}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.further and self.goal != "front":
            raise ValueError(f"goal: front with further = {list(self.further)}: a reward weighs accuracy and latency")
        if self.pruner != "none" and self.goal == "front":
            raise ValueError(f"pruner: none with goal = front, got {self.pruner}: Optuna prunes by one value")
        if len(set(self.devices)) != len(self.devices):
            raise ValueError(f"each device once in devices, got {list(self.devices)}")
        if len(self.devices) > 1 and (self.estimator or self.fallback):
            raise ValueError("one device with an estimator or fallback: a table or predictor stands for one")
        if (self.on_device_lost == "estimate") != (self.fallback is not None):
            raise ValueError("on_device_lost: estimate and fallback: FILE together")
        if self.fallback and "memory_mb" in self.further:
            raise ValueError("no fallback with further = memory_mb: it gives a latency only")
        if self.estimator and self.further:
            raise ValueError("no estimator with further: it gives a latency only")
        return self

    @model_validator(mode="after")
    def _targets_known(self) -> Self:
        unknown = sorted(set(self.objective.targets_ms) - set(self.devices))
        if unknown:
            raise ValueError(f"objective.targets_ms of devices {list(self.devices)}, got {unknown[0]}")
        return self
