"""Python kits, run by an interpreter that sees no mobilezoo, against `mobilezoo predict` on 64 photographs. Slow."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.workflows.kit import write_kit
from tests.mobilezoo.workflows.kit_cases import (
    CLEAN,
    Case,
    answers,
    assert_same,
    expected,
    exported_cases,
    foreign_cases,
    onnx_cases,
    photographs,
)

pytestmark = pytest.mark.slow
RUN = "import sys; sys.modules['mobilezoo'] = None; import runpy; " + (
    "sys.path.insert(0, 'kit'); runpy.run_path(sys.argv[1], run_name='__main__')"
)
"""Runs a script with `import mobilezoo` forbidden."""


def run(kit: Path, images: Sequence[Path], code: int = 0) -> tuple[str, str]:
    """What a kit prints, on both streams."""
    program = f"import sys; sys.argv = sys.argv[1:]; {RUN.replace('argv[1]', 'argv[0]')}"
    command = [sys.executable, "-c", program, str(kit / "classify.py"), *map(str, images)]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=kit.parent, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photographs(tmp_path_factory.mktemp("photographs"))


def check(case: Case, images: list[Path], out: Path) -> str:
    write_kit(case.file, "python", out, case.options)
    printed, _ = run(out, images)
    assert_same(answers(printed), expected(case, images))
    return printed


@pytest.mark.parametrize("name", ["center", "squash", "border", "nearest", "hamming"])
def test_onnx_kits_answer_as_predict_does(name: str, images: list[Path], tmp_path: Path) -> None:
    check(onnx_cases(tmp_path)[name], images, tmp_path / "kit")


@pytest.mark.parametrize("name", ["softmax", "image", "int8", "batch", "flexible"])
def test_kits_of_our_exports_answer_as_predict_does(
    name: str, images: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    printed = check(exported_cases(tmp_path_factory.getbasetemp())[name], images, tmp_path / "kit")
    assert any(label and label in printed for label in CLEAN)


@pytest.mark.parametrize("name", ["coral", "two classes", "two int8 classes"])
def test_kits_of_files_of_others_answer_as_predict_does(name: str, shared: Path, tmp_path: Path) -> None:
    taken = sorted((shared / "foreign" / "images").rglob("*.jpg"))[::5][:64]
    check(foreign_cases(shared)[name], taken, tmp_path / "kit")


def test_deep_transparent_and_broken_images_are_read_as_predict_does(tmp_path: Path) -> None:
    case, rng = onnx_cases(tmp_path)["center"], np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)).resize((60, 50))
    soft.save(tmp_path / "alpha.png")
    soft.convert("RGB").quantize(16).save(tmp_path / "palette.gif", transparency=3)
    Image.fromarray(np.asarray(soft.convert("L")).astype(np.uint16) * 200).save(tmp_path / "deep.png")
    images = [tmp_path / name for name in ("alpha.png", "palette.gif", "deep.png")]
    write_kit(case.file, "python", tmp_path / "kit")
    assert_same(answers(run(tmp_path / "kit", images)[0]), expected(case, images))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    printed, said = run(tmp_path / "kit", [tmp_path / "broken.jpg", images[0]], code=2)
    assert "broken.jpg: cannot identify image file" in said
    assert len(answers(printed)) == 1


def test_without_labels_numbers_are_shown_and_said(images: list[Path], tmp_path: Path) -> None:
    case = onnx_cases(tmp_path)["squash"]
    assert write_kit(case.file, "python", tmp_path / "kit").notes == (
        "squash.onnx has no labels: the kit shows classes by their number (--labels)",
    )
    printed, said = run(tmp_path / "kit", images[:1])
    assert "they are shown by their number" in said
    assert len(printed.splitlines()[1].split()) == 3
