"""Files that answer with boxes or masks: `predict`, kits and the page's description agree; others refuse them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import Artifact, BoxThresholds, read_record_of, save_record
from mobilezoo.cli.main import main
from mobilezoo.errors import ConfigError, ExportError
from mobilezoo.files import sha256_of
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows import kit
from mobilezoo.workflows.card import card_of
from mobilezoo.workflows.evaluate import evaluate
from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.predict import Prediction, predict
from mobilezoo.workflows.try_file import TryConfig, try_files
from mobilezoo_export import ExportSpec
from mobilezoo_export.reference import check_answers
from tests.mobilezoo.workflows.dense_cases import LABELS, detector, segmenter
from tests.mobilezoo.workflows.kit_cases import photographs
from tests.mobilezoo.workflows.test_try_file import get, runtimes

__all__ = ["runtimes"]
pytestmark = pytest.mark.usefixtures("read_inline")
LOCAL = TryConfig(lan=False)


def printed_by_kit(kit: Path, images: list[Path]) -> list[list[str]]:
    """The lines that a kit prints for each image; its pictures lie in the kit's folder."""
    code = "import sys; sys.modules['mobilezoo'] = None; import runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, '.')"
    program = f"{code}; runpy.run_path(sys.argv[0], run_name='__main__')"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program, "draw.py", *map(str, images)]
    done = subprocess.run(command, cwd=kit, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = []
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            found[-1].append(line)
        else:
            found.append([])
    return found


def as_kit_lines(found: Prediction) -> list[str]:
    lines = []
    for box in found.boxes:
        sides = " ".join(f"{side:.1f}" for side in (box.left, box.top, box.right, box.bottom))
        lines.append(f"  {100 * box.probability:6.2f} %  {box.index:4d}  {box.label}  {sides}")
    lines += [f"  {100 * area.share:6.2f} %  {area.index:4d}  {area.label}" for area in found.areas]
    return lines or ["  nothing found"]


def test_boxes_of_predict_and_of_a_python_kit_are_the_same(tmp_path: Path) -> None:
    images, file = photographs(tmp_path, 12), detector(tmp_path / "a.onnx")
    found = predict(str(file), images, top=100)
    assert sum(len(one.boxes) for one in found) > 20
    assert any(len(one.boxes) == 0 for one in found) or min(len(one.boxes) for one in found) < 5
    made = write_kit(file, "python", tmp_path / "kit")
    assert {"draw.py", "network.py", "README.md"} <= set(made.files)
    assert "classify.py" not in made.files
    assert printed_by_kit(tmp_path / "kit", images) == [as_kit_lines(one) for one in found]
    with Image.open(tmp_path / "kit" / "00.found.png") as drawn, Image.open(images[0]) as image:
        assert {drawn.size} <= {image.size, image.size[::-1]}
        assert (np.asarray(drawn.convert("RGB")).astype(int) - _upright(images[0])).any() == bool(found[0].boxes)


def _upright(path: Path) -> np.ndarray:
    from mobilezoo.data.pixels import Pixels

    return np.asarray(Pixels().read(path)).astype(int)


def test_a_mask_has_the_colors_where_the_classes_are(tmp_path: Path) -> None:
    file = segmenter(tmp_path / "a.onnx")
    flag = np.zeros((60, 120, 3), np.uint8)
    flag[:, :40, 0], flag[:, 40:80, 1], flag[:, 80:, 2] = 255, 255, 255
    Image.fromarray(flag).save(tmp_path / "flag.png")
    (found,) = predict(str(file), [tmp_path / "flag.png"])
    assert {area.label for area in found.areas} == set(LABELS)
    assert sum(area.share for area in found.areas) == pytest.approx(1)
    write_kit(file, "python", tmp_path / "kit")
    assert printed_by_kit(tmp_path / "kit", [tmp_path / "flag.png"]) == [as_kit_lines(found)]
    with Image.open(tmp_path / "kit" / "flag.found.png") as image:
        drawn = np.asarray(image)
    assert np.array_equal(drawn[:, 5:30], flag[:, 5:30]), "the background stays clear"
    assert (drawn[:, 45:75] != flag[:, 45:75]).any(-1).all()
    assert len({tuple(drawn[30, x]) for x in (60, 100)}) == 2


@pytest.mark.usefixtures("runtimes")
def test_the_page_is_given_task_layout_and_thresholds(tmp_path: Path) -> None:
    file = detector(tmp_path / "a.onnx")
    with try_files([file], config=LOCAL) as page:
        (given,) = json.loads(get(page.url + "try.json"))["networks"]
        assert (given["task"], given["output_shape"]) == ("detect", [12, 7])
        assert given["boxes"] == {"score": 0.6, "overlap": 0.5}
        assert page.description["samples"] == []
    with pytest.raises(ConfigError, match="draws those of one file at a time"), try_files([file, file], config=LOCAL):
        pass
    with (
        pytest.raises(ConfigError, match="answers with boxes: --data and --classes are for classifiers"),
        try_files([file], data="digits", config=LOCAL),
    ):
        pass


def test_what_only_classifiers_have_is_refused_in_one_line(tmp_path: Path) -> None:
    file = detector(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"'a.onnx' answers with boxes \(task detect\): eval scores classifiers only"):
        evaluate(str(file), "digits")
    with pytest.raises(ConfigError, match="cards describe classifiers only"):
        card_of(str(file))


@pytest.mark.parametrize("make", [detector, segmenter])
@pytest.mark.parametrize(
    ("kind", "target", "suffix", "code"),
    [
        ("cpp", "onnx", "onnx", ("draw.cpp", "program.cmake")),
        ("android", "litert", "tflite", ("Dense.kt", "Find.kt")),
        ("ios", "coreml", "mlpackage", ("Dense.swift", "Finder.swift", "CameraView.swift")),
    ],
)
def test_kits_of_every_language_hold_the_code_that_draws(
    kind: str,
    target: str,
    suffix: str,
    code: tuple[str, ...],
    make: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kit, "tried", lambda path, record, kind: record)
    file = make(tmp_path / "a.onnx").rename(tmp_path / f"a.{suffix}")
    fields = read_record_of(Artifact, make(tmp_path / "b.onnx")).model_dump()
    save_record(file, Artifact(**{**fields, "path": file.name, "target": target, "sha256": sha256_of(file)}))
    made = write_kit(file, kind, tmp_path / "kit")
    assert set(code) <= {Path(name).name for name in made.files}
    assert not {"Classes.kt", "Classifier.swift", "classes.cpp"} & {Path(name).name for name in made.files}
    readme = (tmp_path / "kit" / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# Draw {'boxes' if make is detector else 'masks'} ")
    assert ("ntested" in readme) == (kind != "cpp")
    (told,) = (tmp_path / "kit").rglob("model.json")
    assert json.loads(told.read_text(encoding="utf-8"))["output_shape"] == list(fields["output_shape"])


def test_a_file_that_does_not_answer_as_its_record_has_it_is_refused(tmp_path: Path) -> None:
    file = segmenter(tmp_path / "a.onnx", output_shape=(8, 8, 3))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="answers with 16×16×3 numbers per image, its record holds 8×8×3"):
        predict(str(file), [tmp_path / "a.png"])
    with pytest.raises(ConfigError, match="its record holds 8×8×3"):
        write_kit(file, "python", tmp_path / "kit")


def test_the_command_prints_boxes_and_areas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 20), (200, 20, 20)).save(tmp_path / "red.png")
    detects, segments = detector(tmp_path / "a.onnx"), segmenter(tmp_path / "b.onnx")
    files = {detects: "left, top, right, bottom", segments: "share of the crop"}
    for file, expected in files.items():
        with pytest.raises(SystemExit) as done:
            main(["predict", str(file), str(tmp_path / "red.png")])
        assert done.value.code == 0
        assert expected in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["predict", str(tmp_path / "b.onnx"), str(tmp_path / "red.png"), "--csv"])
    assert done.value.code == 2
    assert "--csv is for classes" in capsys.readouterr().err


def test_labels_of_another_number_are_one_line(tmp_path: Path) -> None:
    from mobilezoo.workflows.model_options import ModelOptions

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for file in (detector(tmp_path / "a.onnx"), segmenter(tmp_path / "b.onnx")):
        with pytest.raises(ConfigError, match="3 outputs and 2 labels"):
            predict(str(file), [tmp_path / "a.png"], ModelOptions(labels=("a", "b")))


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"task": "detect", "labels": ("a",)}, (9, 5)),  # without thresholds
        ({"task": "detect", "boxes": BoxThresholds(), "labels": ("a", "b")}, (9, 5)),
        ({"task": "segment", "labels": ("a", "b")}, (2, 14, 14)),
        ({"task": "segment"}, (2, 14, 14)),
        ({"task": "segment", "boxes": BoxThresholds()}, (14, 14, 2)),
    ],
)
def test_answers_of_another_layout_are_one_line(changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    spec = ExportSpec(
        model="x", resolution=(14, 14), preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3), **changes
    )
    with pytest.raises(ExportError, match=f"task {changes['task']} answers"):
        check_answers(spec, shape)


def test_all_boxes_are_given_unless_a_number_is(tmp_path: Path) -> None:
    file = detector(tmp_path / "a.onnx", boxes=BoxThresholds(score=0.01, overlap=0.99))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (every,), (two,) = (predict(str(file), [tmp_path / "a.png"], top=top) for top in (None, 2))
    assert len(every.boxes) > 5
    assert two.boxes == every.boxes[:2]
