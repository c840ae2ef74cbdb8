"""What goes into and comes out of a search."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError, existing_path
from mobilezoo.models.base import ModelConfig
from mobilezoo.search.engines import FRONT_ENGINES
from mobilezoo.search.objective import Objective
from mobilezoo.search.space import Point, Space
from mobilezoo.search.supernet.settings import SupernetSettings

Engine = Literal["random", "tpe", "evolution", "nsga2", "ppo", "guided"]
Accuracy = Literal["proxy", "supernet", "predictor"]
Goal = Literal["reward", "front"]
State = Literal["complete", "pruned", "failed"]

RESULT_NAME = "search.json"


class SearchConfig(Record):
    """One YAML in configs/search/."""

    name: str | None = Field(default=None, description="run folder below `runs/`; none takes the file's name")
    space: Space
    objective: Objective
    engine: Engine = Field(default="guided", description="guided, evolution, tpe, nsga2, ppo or random")
    goal: Goal = Field(default="reward", description="reward: one network; front: the whole (top-1, latency) front")
    trials: int = Field(default=50, gt=0, description="networks tried in all, those of earlier runs included")
    seed: int = Field(default=0, ge=0)
    population: int = Field(default=16, ge=2, description="networks kept alive by evolution and nsga2")
    tournament: int = Field(default=4, ge=1, description="networks of which evolution picks a parent")
    check_target: bool = Field(
        default=True, description="begin with the smallest network; stop before training when it misses the target"
    )
    max_failures: int = Field(default=5, gt=0, description="stop when this many networks fail in a row")
    recipe: str = Field(description="training config (name or path) that gives a candidate its accuracy")
    recipe_overrides: tuple[str, ...] = Field(default=(), description="dotted overrides of it: train.epochs=5")
    accuracy: Accuracy = Field(
        default="proxy",
        description="proxy: the recipe trains each network; supernet: it trains one network that holds all; "
        "predictor: learned from the supernet's scores",
    )
    supernet: SupernetSettings = SupernetSettings()
    target: str = Field(default="litert", description="export target whose file is timed")
    device: str = Field(default="host", description="device config (name or path) that times it")
    estimator: str | None = Field(
        default=None,
        description="a table or predictor (JSON of `mobilezoo latency`) in place of the device",
    )

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.goal == "front" and self.engine not in FRONT_ENGINES:
            raise ValueError(f"goal: reward, or one of the engines {', '.join(FRONT_ENGINES)}, got {self.engine}")
        return self


class LatencyEstimate(Record):
    """The latency of one candidate and where it comes from."""

    ms: float = Field(gt=0, allow_inf_nan=False)
    source: str
    """For example `measured: LiteRT 2.3.0 (XNNPACK) on host`, or a table's or predictor's name."""
    low_ms: float | None = None
    """95% interval, where the source knows one."""
    high_ms: float | None = None
    error_percent: float | None = None
    """Of an estimate: its mean absolute error on networks that were measured; None where this one was measured."""
    noisy: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to be judged."""

    number: int
    point: Point
    config: ModelConfig
    folder: Path
    """A folder of its own, for checkpoints and artefacts; made by whoever needs it."""
    report: Callable[[int, float], None]
    """`report(epoch, top1)`: the search keeps it, and may end the candidate by an exception that must pass through."""


class Evaluate(Protocol):
    def __call__(self, candidate: Candidate) -> float:
        """Top-1 accuracy in percent."""


class Latency(Protocol):
    def __call__(self, candidate: Candidate) -> LatencyEstimate:
        """Latency of the untrained network; called before `Evaluate`."""


class TrialRecord(Record):
    """One tried network."""

    number: int
    state: State
    point: Point | None
    """None when the trial ended before it had a network."""
    arch: tuple[str, ...] = ()
    """One architecture string per stage."""
    top1: float | None = None
    latency: LatencyEstimate | None = None
    reward: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    """Reported (epoch, top-1) pairs."""
    reason: str | None = None
    """Why it failed or was pruned."""
    duplicate_of: int | None = None
    """An earlier trial of the same network, whose figures are used again."""
    engine: str = ""
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
    trials: tuple[TrialRecord, ...]
    front: tuple[int, ...]
    """Trial numbers that no other dominates in (top-1, latency), fastest first."""
    best: int | None
    """Trial number of the highest reward."""
    front_yaml: tuple[str, ...] = ()
    """Model YAMLs of `front`, relative to the record's folder."""
    best_yaml: str | None = None

    def trial(self, number: int) -> TrialRecord:
        return next(trial for trial in self.trials if trial.number == number)


def load_search_result(path: str | Path) -> SearchResult:
    """The record of a search from its folder or file. Raises MobilezooError when it is missing or damaged."""
    found = existing_path(path, "search result")
    file = found / RESULT_NAME if found.is_dir() else found
    try:
        return SearchResult.parse(json.loads(file.read_text(encoding="utf-8")), str(file))
    except FileNotFoundError:
        raise MobilezooError(f"{str(found)!r} holds no {RESULT_NAME}: is it the folder of a search?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MobilezooError(f"{str(file)!r} is damaged: {error}") from None
