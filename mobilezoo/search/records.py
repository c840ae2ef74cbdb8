"""Records of a search: its config, candidates, measurements and result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from mobilezoo.config import Record, Words, listed
from mobilezoo.errors import DeviceError, MobilezooError, existing_path
from mobilezoo.models.base import ModelConfig
from mobilezoo.reading import read_json
from mobilezoo.search.engines import ENGINES, EngineSettings, Goal, engines_for
from mobilezoo.search.objective import Objective
from mobilezoo.search.space import Point, Space
from mobilezoo.search.supernet.settings import SupernetSettings

Accuracy = Literal["proxy", "supernet", "predictor"]
Further = Literal["size_mb", "memory_mb"]
State = Literal["complete", "pruned", "failed"]

RESULT_NAME = "search.json"
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


class LatencyEstimate(Record):
    """The latency of one candidate and where it comes from."""

    ms: float = Field(gt=0, allow_inf_nan=False)
    source: str
    """For example `measured: LiteRT 2.3.0 (XNNPACK) on host`, or a table's or predictor's name."""
    low_ms: float | None = None
    """Lower end of the 95% interval, where the source has one."""
    high_ms: float | None = None
    error_percent: float | None = None
    """Mean absolute percentage error of an estimator on measured networks; None where this one was measured."""
    noisy: bool = False

    @property
    def measured(self) -> bool:
        """Whether a device measured it."""
        return self.error_percent is None and self.source.startswith("measured")


class Figures(Record):
    """Measurements of a candidate's exported file, taken before training."""

    latency: dict[str, LatencyEstimate] = Field(min_length=1)
    """By device, in the order of the config; an estimate stands under the search's only device."""
    size_mb: float | None = None
    """Size of the file in 10^6 bytes."""
    memory_mb: float | None = None
    """Peak growth of resident memory in 10^6 bytes, where the first device reports it."""

    @property
    def latency_ms(self) -> dict[str, float]:
        """Latency in milliseconds by device."""
        return {device: estimate.ms for device, estimate in self.latency.items()}


class DeviceLostError(DeviceError):
    """A device that was connected and is no longer: the search stops, and its trial runs again later."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to be evaluated."""

    number: int
    """Candidate index; the same after an interruption."""
    point: Point
    config: ModelConfig
    folder: Path
    """A folder of its own for checkpoints and artifacts, not created yet."""
    report: Callable[[int, float], None]
    """`report(epoch, top1)`, to be called after each epoch; its exceptions end the candidate and must propagate."""


class Evaluate(Protocol):
    def __call__(self, candidate: Candidate) -> float:
        """Returns the top-1 accuracy in percent."""


class Measure(Protocol):
    def __call__(self, candidate: Candidate) -> Figures:
        """Measures latency, and size or memory where needed, of the network with random weights, before `Evaluate`.

        Raises:
            DeviceLostError: the device is not reachable now; the search stops.
            MobilezooError: the candidate cannot be exported or run; only its trial fails.
        """


class TrialRecord(Record):
    """One tried network."""

    number: int
    """Candidate index; Optuna's trial number is higher after interruptions."""
    state: State
    point: Point | None
    """None when the trial ended before it had a network."""
    arch: tuple[str, ...] = ()
    """One architecture string per stage."""
    top1: float | None = None
    latency: LatencyEstimate | None = None
    """On the first device."""
    elsewhere: dict[str, LatencyEstimate] = {}
    """On the other devices."""
    size_mb: float | None = None
    memory_mb: float | None = None
    remeasured: dict[str, LatencyEstimate] = {}
    """Front members: measured again after the search, by device."""
    reward: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    """Reported (epoch, top-1) pairs."""
    reason: str | None = None
    """Why it failed or was pruned."""
    duplicate_of: int | None = None
    """Number of an earlier trial of the same network, whose results are reused."""
    engine: str = ""
    worker: str = ""
    """HOST:PROCESS that evaluated it."""
    seconds: float = 0.0


class SearchResult(Record):
    """A finished or interrupted search."""

    schema_version: Literal[1] = 1
    name: str
    engine: str
    seed: int
    space_sha256: str
    space_count: int | None
    """Networks in the space; None where JSON could not hold the number exactly."""
    objective: Objective
    devices: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ("top1", "host_ms")
    """Names of the front's criteria."""
    trials: tuple[TrialRecord, ...]
    front: tuple[int, ...]
    """Numbers of the trials that no other dominates in the criteria, fastest first."""
    best: int | None
    """Number of the trial with the highest reward."""
    front_yaml: tuple[str, ...] = ()
    """Model YAMLs of `front`, relative to the record's folder."""
    best_yaml: str | None = None

    def trial(self, number: int) -> TrialRecord:
        """Returns the trial of a number, which must exist."""
        return next(trial for trial in self.trials if trial.number == number)


def load_search_result(path: str | Path) -> SearchResult:
    """Loads the record of a search from its folder or file. Raises MobilezooError if it is missing or damaged."""
    found = existing_path(path, "search result")
    file = found / RESULT_NAME if found.is_dir() else found
    if not file.is_file():
        raise MobilezooError(f"{str(found)!r} holds no {RESULT_NAME}: is it the folder of a search?")
    return SearchResult.parse(read_json(file), str(file))
