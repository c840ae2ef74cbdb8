"""Mixed int8 files: which operators stay float, how few suffice, and that every target really leaves them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, InputSpec, Parity
from mobilezoo.errors import ExportError
from mobilezoo_export import ExportResult, ExportSession, ExportSpec, ProofImages, load_exporter
from mobilezoo_export.quantize.litert import _named_in_float
from mobilezoo_export.quantize.mixed import SEGMENTS, float_positions
from mobilezoo_export.quantize.mixed_search import search

SENSITIVE = {2: 9.0, 5: 4.0, 6: 1.0}
"""Top-1 points that each of these segments costs in int8."""


@pytest.mark.parametrize("operators", [4, 10, 14, 50])
def test_segments_cover_a_file_without_overlap(operators: int) -> None:
    weighted = [i % 3 == 1 for i in range(operators)]
    segments = [float_positions(weighted, (segment,)) for segment in range(SEGMENTS)]
    assert set().union(*segments) == set(range(operators))
    assert sum(map(len, segments)) == operators
    assert float_positions(weighted, (0, 1)) == segments[0] | segments[1]
    assert float_positions([False] * 5, ()) == set()


def made(kept_float: tuple[int, ...], folder: Path) -> ExportResult:
    """A stand-in file whose name tells what is in float; its SNR is better the less sensitive int8 is left."""
    folder.mkdir(parents=True, exist_ok=True)
    lost = sum(cost for segment, cost in SENSITIVE.items() if segment not in kept_float)
    parity = Parity(
        inputs="", images=1, max_abs=0, relative=0, snr_db=40 - lost, top1_agreement=1, tolerance=1, ran_in=""
    )
    (folder / "file").write_text(str(lost))
    artifact = Artifact(
        path="file", target="onnx", precision="int8", model="m", input=InputSpec(shape=(1, 3, 8, 8)),
        preprocessing={"mean": (0, 0, 0), "std": (1, 1, 1)}, sha256="0", size_bytes=1, parity=parity, tools={},
    )  # fmt: skip
    return ExportResult(target="onnx", precision="int8", status="exported", artifact=artifact)


def top1(path: Path) -> float:
    return 80.0 - float(path.read_text())


@pytest.mark.parametrize(
    ("max_drop", "kept", "drop"), [(20, (), 14), (5.5, (2,), 5), (1.0, (2, 5), 1), (0.0, (2, 5, 6), 0)]
)
def test_the_fewest_segments_that_hold_the_accuracy(max_drop: float, kept: tuple[int, ...], drop: float) -> None:
    told: list[str] = []
    found = search(made, top1, 80.0, max_drop, told.append)
    assert found.float_segments == kept
    assert found.drop == pytest.approx(drop)
    assert found.top1_int8 == pytest.approx(66)
    assert found.tried <= 1 + SEGMENTS + 4
    assert told


def test_a_limit_that_no_mixed_file_meets_is_one_line() -> None:
    with pytest.raises(ExportError, match="no mixed int8 file stays within 1 points"):
        search(made, lambda _: 10.0, 80.0, 1.0, lambda _: None)


def wide() -> nn.Module:
    """Core ML leaves weights of fewer than 2,048 elements as they are."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3 if i == 0 else 32, 32, 3, padding=1) for i in range(4)]
    layers = [part for conv in convs for part in (conv, nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["onnx", "litert", "executorch", "coreml"])
def test_segments_really_stay_float(target: str, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(16, 3, 14, 14)).astype(np.float32)
    files = []
    for kept_float in ((), tuple(range(SEGMENTS // 2)), tuple(range(SEGMENTS - 1))):
        spec = tiny_spec.model_copy(update={"precision": "int8", "float_segments": kept_float})
        folder = tmp_path / str(len(kept_float))
        with ExportSession(wide(), spec, ProofImages(images, calibration=images)) as session:
            result = session.export(target, spec, folder / f"wide{load_exporter(target).suffix}")
        assert result.artifact is not None, result.reason
        assert result.artifact.float_segments == kept_float
        assert result.artifact.parity is not None
        files.append(result.artifact)
    plain, half, most = files
    assert plain.size_bytes < half.size_bytes < most.size_bytes


def test_operators_in_float_are_one_pattern_of_their_exact_names() -> None:
    # the quantizer searches each pattern for each operator and image, and compiles more than 512 again each time
    (entry,) = _named_in_float(["block/add;", "block/mul(1)"], ";?")
    matches = [
        bool(re.search(entry["regex"], name)) for name in ("block/add;", "block/mul(1);", "block/mul1", "a/block/add;")
    ]
    assert matches == [True, True, False, False]
    assert _named_in_float([]) == []
