"""Conformance suite of search engines."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from mobilezoo.search.config import SearchConfig
from mobilezoo.search.engines import ENGINES
from mobilezoo.search.records import Candidate, Figures, LatencyEstimate, SearchResult
from mobilezoo.search.study import search

STAGE = {"kernel": [3, 5], "expansion": [2, 3], "attention": ["none", "se"], "depth": [1, 2]}
STAGES = [
    {"stride": 1, "block": ["ds", "ir"], "width": [8, 16], **STAGE},
    {"stride": 2, "block": ["ds", "ir"], "width": [16, 24], **STAGE},
]
DATA: dict[str, Any] = {
    "name": "toy",
    "space": {"resolution": [32], "stem": 8, "head": 16, "stages": STAGES},
    "objective": {"target_ms": 3.0},
    "population": 3,
    "recipe": "digits",
}


def size(candidate: Candidate) -> float:
    return sum(s.depth * s.width * (s.expansion + s.kernel / 3) for s in candidate.point.stages)


def measure(candidate: Candidate) -> Figures:
    return Figures(latency={"host": LatencyEstimate(ms=0.5 + size(candidate) / 60, source="a formula")})


def evaluate(candidate: Candidate) -> float:
    bonus = sum(s.attention == "se" for s in candidate.point.stages)
    return 100 - 900 / (10 + size(candidate)) + bonus


class EngineConformance:
    """Subclass it as `class TestMine(EngineConformance)` and name an engine; pytest runs what is inherited."""

    engine: ClassVar[str]
    """Name or place."""
    trials: ClassVar[int] = 14

    @pytest.fixture
    def configs(self) -> list[SearchConfig]:
        """A search for each goal of the engine."""
        goals = ENGINES.load(self.engine).goals
        data = {**DATA, "engine": self.engine, "trials": self.trials}
        return [SearchConfig.parse({**data, "goal": goal}, "toy.yaml") for goal in goals]

    def test_a_resumed_search_equals_an_unbroken_one(self, configs: list[SearchConfig], tmp_path: Path) -> None:
        """A search that is stopped twice finds the same networks as one that runs through.

        Args:
            configs: a search for each goal of the engine.
            tmp_path: pytest's fixture.
        """
        for config in configs:
            unbroken = search(config, evaluate, measure, tmp_path / config.goal / "a")
            folder = tmp_path / config.goal / "b"
            search(config, evaluate, measure, folder, trials=5)
            evaluated: list[int] = []

            def stop(candidate: Candidate, evaluated: list[int] = evaluated) -> float:
                evaluated.append(candidate.number)
                if len(evaluated) == 3:
                    raise KeyboardInterrupt
                return evaluate(candidate)

            with pytest.raises(KeyboardInterrupt):
                search(config, stop, measure, folder)
            assert _outcome(search(config, evaluate, measure, folder)) == _outcome(unbroken)
            assert len({str(trial.point) for trial in unbroken.trials}) > 1


def _outcome(result: SearchResult) -> list[Any]:
    return [(t.point, t.state, t.top1, t.reward, t.duplicate_of is not None) for t in result.trials]
