"""Graphs that delegates of phones computed wrongly for others: every unit that is set up must compute them rightly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.errors import DeviceError, MissingToolError
from mobilezoo.workflows.check_units import UNITS, UnitChecks
from mobilezoo_export import ExportConfig, ExportHooks, ModelSpec, export_model
from mobilezoo_latency.registry import load_device

pytestmark = pytest.mark.slow
SIDE, WIDTH, CLASSES = 8, 8, 5
TARGETS = {"cpu": "litert", "gpu": "litert", "npu": "onnx"}
"""Unit → format that it takes."""


class Attention(nn.Module):
    """Attention of one head over tensors of three axes, with or without a mask of what comes later."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, CLASSES)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        length = (SIDE // 2) ** 2
        mask = torch.full((length, length), -1e4).triu(1) if masked else torch.zeros(length, length)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).split(WIDTH, dim=-1)
        scores = (q @ k.transpose(1, 2) / WIDTH**0.5 + self.mask).softmax(-1)
        made: torch.Tensor = self.head((scores @ v).mean(1))
        return made


class LargeSums(nn.Module):
    """Squares whose sum over all pixels is 2 to 5 times what half precision holds, scaled back afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 1), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = (60 + self.stem(x)).square()
        made: torch.Tensor = self.head(squares.sum((2, 3)) / 65536)
        return made


def check(network: nn.Module, unit: str, folder: Path):
    """What one unit makes of a network; skips where the unit is not set up."""
    try:
        load_device(UNITS[unit]).check()
    except (DeviceError, MissingToolError) as error:
        pytest.skip(str(error))
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ModelSpec(model="known", resolution=(SIDE, SIDE), preprocessing=preprocessing)
    config = ExportConfig(targets=(TARGETS[unit],), precisions=("fp32",))
    hooks = ExportHooks(check=UnitChecks((unit,)))
    (result,) = export_model(network.eval(), spec, config, folder, isolate=False, hooks=hooks)
    assert result.artifact is not None, result.reason
    (one,) = result.artifact.checks
    return one


@pytest.mark.parametrize("unit", TARGETS)
@pytest.mark.parametrize("masked", [False, True], ids=["rank 3", "masked"])
def test_attention_is_computed_rightly(masked: bool, unit: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = check(Attention(masked), unit, tmp_path)
    assert one.status == "passed", one.reason
    if one.partitions is not None:
        assert (one.partitions, one.outside) == (1, {})


@pytest.mark.parametrize("unit", ["gpu", "npu"])
def test_sums_beyond_half_precision_fail_or_the_check_states_that_they_are_not_seen(unit: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = check(LargeSums(), unit, tmp_path)
    unseen = any("overflow on a phone's GPU is not seen" in note for note in one.notes)
    assert one.status == "failed" if unit == "npu" else one.status == "passed", one
    assert unseen is (unit == "gpu")
    assert one.parity is not None
    assert np.isfinite(one.parity.relative)
