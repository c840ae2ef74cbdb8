"""The segmentation example learns: its loss falls on real photographs and real scanned digits."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "segment_backbone.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("segment_backbone", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_loss_falls_and_held_out_ink_is_found(example: ModuleType) -> None:
    torch.manual_seed(0)
    size = 96
    photos = example.load_photos(None, size)
    model = example.build("mobilenetv2_ca_100")
    losses = example.train(model, example.DigitsOnPhotos(photos, train=True, size=size), steps=24, lr=3e-3)
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])
    held_out = example.DigitsOnPhotos(photos, train=False, size=size, seed=1)
    assert example.ink_iou(model, held_out, batches=2) > 0.15


def test_ink_is_labelled(example: ModuleType) -> None:
    data = example.DigitsOnPhotos(example.load_photos(None, 64), train=False, size=64)
    x, y = data.batch(3)
    assert x.shape == (3, 3, 64, 64)
    assert y.shape == (3, 64, 64)
    assert 0.02 < float((y > 0).float().mean()) < 0.5
    assert set(y.unique().tolist()) <= {0, 1}


def test_own_photographs_and_a_picture_of_the_result(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (80, 200, 3), dtype=np.uint8)).save(tmp_path / "own.png")
    picture = tmp_path / "result.png"
    options = ["--model", "shvit_s1", "--steps", "4", "--size", "64"]
    example.main([*options, "--photos", str(tmp_path), "--picture", str(picture)])
    assert "held out" in capsys.readouterr().out
    assert Image.open(picture).size == (3 * 64, 4 * 64)


def test_a_folder_without_large_photographs_is_one_line(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no photograph"):
        example.load_photos(tmp_path, 64)
