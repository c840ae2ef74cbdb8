"""Where the latency of a candidate comes from, and that its trial says so."""

from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import DeviceInfo
from mobilezoo.errors import DeviceError, MobilezooError
from mobilezoo.search.networks import load_search_config, model_config
from mobilezoo.search.records import Candidate, SearchConfig
from mobilezoo.verbs.judge import Judge
from mobilezoo.verbs.spaces import block_keys
from mobilezoo_latency.estimators.table import Table


def candidate(settings: SearchConfig, folder: Path, seed: int = 0) -> Candidate:
    point = settings.space.sample(np.random.default_rng(seed))
    config = model_config(settings.space, point, "candidate_0000")
    return Candidate(number=0, point=point, config=config, folder=folder, report=lambda epoch, top1: None)


def test_a_table_gives_the_latency_with_its_error_and_name(tmp_path: Path) -> None:
    settings = load_search_config("digits", (f"estimator={tmp_path / 'pixel.table.json'}",))
    first = candidate(settings, tmp_path)
    keys = block_keys(settings.space, first.point)
    table = Table(
        device=DeviceInfo(name="Pixel", kind="phone", runtime="LiteRT"),
        source="made up",
        blocks_ms=dict.fromkeys(keys, 0.5),
        overhead_ms=0.25,
        error_percent=3.5,
        low_ratio=0.9,
        high_ratio=1.2,
        networks=12,
    )
    table.save(tmp_path / "pixel.table.json")
    found = Judge(settings).measure(first).latency["host"]
    assert found.ms == pytest.approx(0.25 + 0.5 * len(keys))
    assert (found.low_ms, found.high_ms) == (pytest.approx(found.ms * 0.9), pytest.approx(found.ms * 1.2))
    assert found.error_percent == 3.5
    assert found.source.startswith("estimated: pixel.table.json (")
    others = (candidate(settings, tmp_path, seed) for seed in range(1, 50))
    other = next(c for c in others if set(block_keys(settings.space, c.point)) - set(keys))
    with pytest.raises(DeviceError, match="has no block"):
        Judge(settings).measure(other)


def test_an_estimator_that_is_none_is_one_line(tmp_path: Path) -> None:
    settings = load_search_config("digits", (f"estimator={tmp_path / 'no.json'}",))
    with pytest.raises(MobilezooError, match="table or predictor not found"):
        Judge(settings).measure(candidate(settings, tmp_path))
