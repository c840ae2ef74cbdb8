"""C++ kits, built by CMake as their README has it, against `mobilezoo predict` on 64 photographs. Slow.

LiteRT's library is that of its Python package, as is ONNX Runtime's; the latter's header has to be at hand.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec, Preprocessing
from mobilezoo.data.transforms import eval_pixels
from mobilezoo.workflows.kit import write_kit
from tests.mobilezoo.workflows.kit_cases import (
    CLEAN,
    PREPARATIONS,
    Case,
    answers,
    assert_same,
    columns_first,
    expected,
    expected_columns_first,
    exported_cases,
    foreign_cases,
    onnx_cases,
    photographs,
)
from tests.mobilezoo.workflows.test_try_file import network

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not (shutil.which("cmake") and shutil.which("g++") and Path("/usr/include/jpeglib.h").is_file()),
        reason="no CMake, C++ compiler or libjpeg here: run `apt-get install cmake g++ libjpeg62-turbo-dev`",
    ),
]
HEADER = "onnxruntime_c_api.h"
HARNESS = """
#include <cstdio>
#include "prepare.h"
int main(int, char** words) {
  const Image crop = fit(read_image(words[1], int(model::mean.size())));
  std::fwrite(crop.pixels.data(), 1, crop.pixels.size(), stdout);
}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photographs(tmp_path_factory.mktemp("photographs"))


def site(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def onnx_options(folder: Path) -> list[str]:
    """CMake's options for the library of the Python package and a header of the machine."""
    places = [Path(os.environ.get("ONNXRUNTIME_ROOT", "/usr")) / "include" / part for part in ("", "onnxruntime")]
    header = next((place for place in places if (place / HEADER).is_file()), None)
    if header is None:
        pytest.skip(f"no {HEADER} here: unpack a release of ONNX Runtime and set ONNXRUNTIME_ROOT to its folder")
    (library,) = (site("onnxruntime") / "capi").glob("libonnxruntime.so.1.*")
    (folder / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1", library.name):
        (folder / "lib" / name).symlink_to(library)
    return [f"-DONNXRUNTIME_ROOT={folder}", f"-DONNXRUNTIME_INCLUDE={header}"]


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(case: Case, images: list[Path], folder: Path, *, library: str) -> str:
    """What the program prints, once it answered as predict does."""
    kit = folder / "kit"
    write_kit(case.file, "cpp", kit, case.options)
    options = [f"-DLITERT_LIBRARY_DIR={site('ai_edge_litert')}"] if library == "litert" else onnx_options(folder)
    run(["cmake", "-B", "build", *options], kit)
    run(["cmake", "--build", "build"], kit)
    printed = run([str(kit / "build" / "classify"), *map(str, images)], folder)
    found = answers(printed)
    if case.file.parent.name == "tflite":  # real photographs
        assert_same(found, expected(case, images), atol=0.05)  # Pillow 13's order of passes
    else:
        assert_same(found, expected_columns_first(case, images))
    return printed


@pytest.mark.parametrize("name", ["softmax", "int8", "batch"])
def test_programs_of_our_exports_answer_as_predict_does(
    name: str, images: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = exported_cases(tmp_path_factory.getbasetemp())[name]
    printed = check(case, images, tmp_path, library="litert")
    assert any(label and label in printed for label in CLEAN)


@pytest.mark.parametrize("name", ["coral", "two int8 classes"])
def test_programs_of_files_of_others_answer_as_predict_does(name: str, shared: Path, tmp_path: Path) -> None:
    taken = sorted((shared / "foreign" / "images").rglob("*.jpg"))[::5][:64]
    check(foreign_cases(shared)[name], taken, tmp_path, library="litert")


@pytest.mark.parametrize("name", ["squash", "flexible"])
def test_onnx_programs_answer_as_predict_does(
    name: str, images: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ours = exported_cases(tmp_path_factory.getbasetemp()) if name == "flexible" else onnx_cases(tmp_path)
    check(ours[name], images, tmp_path, library="onnx")


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("center bicubic", (24, 40), 3),
        ("border lanczos", (32, 32), 3),
        ("nearest", (24, 40), 3),
        ("hamming", (32, 32), 1),
    ],
)
def test_every_byte_of_the_crop_equals_pillows(
    name: str, size: tuple[int, int], channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prep: Preprocessing = PREPARATIONS[name].for_channels(channels)
    spec = InputSpec(shape=(1, channels, *size))
    monkeypatch.setattr("mobilezoo.workflows.kit.tried", lambda path, record: record)
    write_kit(network(tmp_path / "a.onnx", preprocessing=prep, input=spec), "cpp", tmp_path / "kit")
    (tmp_path / "kit" / "harness.cpp").write_text(HARNESS)
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "harness.cpp", "prepare.cpp", "image.cpp", "-ljpeg"]
    run(["g++", *flags, "-o", "harness"], tmp_path / "kit")
    monkeypatch.setattr(Image.Image, "resize", columns_first)
    for path in photographs(tmp_path, 12)[1:]:
        with Image.open(path) as opened:
            image = opened.convert("RGB" if channels == 3 else "L")
        image.save(tmp_path / "image.ppm")
        command = [str(tmp_path / "kit" / "harness"), str(tmp_path / "image.ppm")]
        found = subprocess.run(command, capture_output=True, check=True).stdout
        wanted = eval_pixels(prep, size)(image).permute(1, 2, 0).numpy()
        assert np.array_equal(np.frombuffer(found, np.uint8).reshape(wanted.shape), wanted), (name, image.size)
