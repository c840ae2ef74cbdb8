"""Records of a search: its config, candidates, measurements and result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, MobilezooError, existing_path
from mobilezoo.models.base import ModelConfig
from mobilezoo.reading import read_json
from mobilezoo.search.objective import Objective
from mobilezoo.search.space import Point

State = Literal["complete", "pruned", "failed"]

CONFIG_NAME, RESULT_NAME = "search.yaml", "search.json"


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
    basis: str = ""
    """Hash of what it rests on, see `search.kept`; empty where only the database can tell whether it is up to date."""

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
