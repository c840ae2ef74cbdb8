"""The examples of boxes and masks: their scenes are what they claim, and training, files and scores work together."""

import importlib
import re
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_boxes_of_a_scene_hold_the_ink_of_its_mask_and_nothing_else() -> None:
    scenes = importlib.import_module("digits_on_photos")
    data = scenes.Scenes(scenes.load_photos(None, 64), 64, train=False)
    for scene in data.batch(12)[1]:
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for box, digit in zip((scene.boxes * 64).round().long().tolist(), scene.classes.tolist(), strict=True):
            left, top, right, bottom = box
            inside = scene.mask[top:bottom, left:right]
            assert set(inside.unique().tolist()) <= {0, digit + 1}
            assert (inside > 0).any(0).all()
            covered[top:bottom, left:right] = True
        assert not (scene.mask[~covered] > 0).any()


def test_a_folder_without_large_photographs_is_one_line(tmp_path: Path) -> None:
    scenes = importlib.import_module("digits_on_photos")
    with pytest.raises(SystemExit, match="no photograph"):
        scenes.load_photos(tmp_path, 64)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["detect", "segment"])
def test_every_file_scores_as_pytorch_does(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools")
    importlib.import_module(name).main(["--steps", "30", "--size", "64", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    (mine,) = re.findall(r"^ {20,}\S+ ([\d.]+)", out, re.MULTILINE)
    files = re.findall(r"^\S+\.fp32\.(?:tflite|onnx) +\S+ ([\d.]+)", out, re.MULTILINE)
    assert files == [mine, mine]
    assert len(re.findall(r"^\S+\.int8\.", out, re.MULTILINE)) == 2
