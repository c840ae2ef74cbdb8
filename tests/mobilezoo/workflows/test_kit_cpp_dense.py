"""C++ kits that draw boxes and masks, against `mobilezoo predict` and the Python kit on photographs. Slow."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.predict import Prediction, predict
from tests.mobilezoo.workflows.cpp_cases import built, needs_compiler, rebuild, run
from tests.mobilezoo.workflows.dense_cases import detector, litert_file, segmenter
from tests.mobilezoo.workflows.kit_cases import columns_first, photographs
from tests.mobilezoo.workflows.kit_scripts import finder_of

pytestmark = [pytest.mark.slow, needs_compiler]
MASKS = """
#include <cstdio>
#include "image.h"
#include "mask.h"
#include "model.h"
#include "network.h"
#include "prepare.h"
int main(int count, char** words) {
  Network network(words[1]);
  for (int i = 2; i < count; ++i) {
    auto input = tensor(fit(read_image(words[i], int(model::mean.size()))));
    for (size_t index : mask_of(network.run(input))) std::putchar(int(index));
  }
}
"""
"""Writes the masks of images, a byte per pixel."""


class Line(NamedTuple):
    """What is printed of one box or class."""

    percent: float
    index: int
    name: str
    sides: tuple[float, ...]


def lines_of(text: str) -> list[list[Line]]:
    """What a kit printed for each image."""
    found: list[list[Line]] = []
    for line in text.splitlines():
        if not line.startswith(" "):
            found.append([])
        elif line != "  nothing found":
            read = re.fullmatch(
                r" *([\d.]+) % +(\d+)  (.*?)((?:  |(?<=\d) )-?[\d.]+ -?[\d.]+ -?[\d.]+ -?[\d.]+)?", line
            )
            assert read, line
            sides = tuple(map(float, (read[4] or "").split()))
            found[-1].append(Line(float(read[1]), int(read[2]), read[3], sides))
    return found


def expected(file: Path, images: list[Path]) -> list[Prediction]:
    """By `mobilezoo predict`, with Pillow's order of passes before version 13."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", columns_first)
        return predict(str(file), images)


def assert_same_boxes(found: list[list[Line]], wanted: list[Prediction]) -> None:
    assert [len(one) for one in found] == [len(one.boxes) for one in wanted]
    for lines, prediction in zip(found, wanted, strict=True):
        for line, box in zip(lines, prediction.boxes, strict=True):
            assert (line.index, line.name) == (box.index, box.label)
            assert line.percent == pytest.approx(100 * box.probability, abs=0.011)
            assert line.sides == pytest.approx((box.left, box.top, box.right, box.bottom), abs=0.11)


def assert_same_areas(found: list[list[Line]], wanted: list[Prediction]) -> None:
    for lines, prediction in zip(found, wanted, strict=True):
        assert [line.index for line in lines] == [area.index for area in prediction.areas]
        shares = [100 * area.share for area in prediction.areas]
        assert [line.percent for line in lines] == pytest.approx(shares, abs=0.011)


def assert_pictures_as_the_python_kits(kit: Path, file: Path, images: list[Path], *, text: bool) -> None:
    """Of the same colors in the same places; letters differ, and JPEG changes all a little."""
    write_kit(file, "python", kit / "python")
    finder = finder_of(kit / "python")
    for path in images:
        image = finder.read(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image.Image, "resize", columns_first)
            wanted = np.asarray(finder.draw(image)).astype(float)
        with Image.open(kit / f"{path.stem}.found.jpg") as drawn:
            found = np.asarray(drawn.convert("RGB")).astype(float)
        off = np.abs(found - wanted).max(-1)
        assert np.median(off) < 8
        assert (off > 60).mean() < (0.35 if text else 0.02), path  # tags hide much of small images


def test_boxes_are_those_of_predict(tmp_path: Path) -> None:
    images, file = photographs(tmp_path, 24), detector(tmp_path / "a.onnx")
    kit, wanted = built(file, tmp_path), expected(file, images)
    assert sum(len(one.boxes) for one in wanted) > 60
    assert_same_boxes(lines_of(run(["build/draw", *map(str, images)], kit)), wanted)
    assert_pictures_as_the_python_kits(kit, file, images[:4], text=True)


def test_masks_are_those_of_the_python_kit(tmp_path: Path) -> None:
    images, file = photographs(tmp_path, 24), segmenter(tmp_path / "a.onnx")
    kit, wanted = built(file, tmp_path), expected(file, images)
    assert_same_areas(lines_of(run(["build/draw", *map(str, images)], kit)), wanted)
    assert_pictures_as_the_python_kits(kit, file, images[:6], text=False)
    assert_same_masks(kit, images)


def assert_same_masks(kit: Path, images: list[Path], most_off: int = 0) -> None:
    """Every pixel has the class that the Python kit beside has found, but for some."""
    (kit / "main.cpp").write_text(MASKS)
    rebuild(kit)
    model = next(kit.glob("model.[ot]*"))
    done = subprocess.run([kit / "build" / "draw", model, *images], capture_output=True, check=True)
    finder = finder_of(kit / "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", columns_first)
        masks = np.stack([finder.mask(path) for path in images])
    found = np.frombuffer(done.stdout, np.uint8).reshape(masks.shape)
    assert len(np.unique(masks)) == 3
    assert (found != masks).sum() <= most_off


@pytest.mark.nightly
def test_boxes_of_int8_litert_files_are_those_of_predict(tmp_path: Path) -> None:
    images, file = photographs(tmp_path, 24), litert_file(tmp_path, "detect", "int8")
    kit, wanted = built(file, tmp_path), expected(file, images)
    assert sum(len(one.boxes) for one in wanted) > 60
    assert_same_boxes(lines_of(run(["build/draw", *map(str, images)], kit)), wanted)


@pytest.mark.nightly
def test_masks_of_litert_files_are_those_of_predict(tmp_path: Path) -> None:
    images, file = photographs(tmp_path, 24), litert_file(tmp_path, "segment", "fp32")
    kit = built(file, tmp_path)
    assert_same_areas(lines_of(run(["build/draw", *map(str, images)], kit)), expected(file, images))
    write_kit(file, "python", kit / "python")
    assert_same_masks(kit, images)


def test_what_is_no_image_is_one_line_and_the_others_are_drawn(tmp_path: Path) -> None:
    images = photographs(tmp_path, 2)
    kit = built(detector(tmp_path / "a.onnx"), tmp_path, build_type="Debug")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(images[1].read_bytes()[:-400])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / images[0].name).write_bytes(images[0].read_bytes())
    wrong = [tmp_path / "text.jpg", tmp_path / "cut.jpg", tmp_path / "none.jpg", tmp_path / "again" / images[0].name]
    done = _run_wrong(kit, [*images, *wrong])
    assert done.returncode == 2
    said = dict(line.rsplit(": ", 1) for line in done.stderr.splitlines() if "by itself" not in line)
    assert said[str(wrong[0])] == "neither JPEG nor binary PPM or PGM"
    assert said[str(wrong[1])] == "a JPEG that is cut off"
    assert said[str(wrong[2])] == "cannot be opened"
    assert f"{images[0].stem}.found.jpg is the picture of another image of this name" in done.stderr
    assert len(lines_of(done.stdout)) == len(images)
    assert not list(kit.glob("*.part"))


def _run_wrong(kit: Path, images: list[Path]) -> Any:
    return subprocess.run(["build/draw", *images], cwd=kit, capture_output=True, text=True, check=False)
