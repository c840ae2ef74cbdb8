"""C++ kits, built by CMake as their README has it, against `mobilezoo predict` on 64 photographs. Slow."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec, Preprocessing
from mobilezoo.data.transforms import eval_pixels
from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.model_options import ModelOptions
from tests.mobilezoo.workflows.cpp_cases import built, needs_compiler, run
from tests.mobilezoo.workflows.kit_cases import (
    CLEAN,
    LABELS,
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

onnx = pytest.importorskip("onnx")
pytestmark = [pytest.mark.slow, needs_compiler]
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


def check(case: Case, images: list[Path], folder: Path) -> str:
    """What the program prints, once it answered as predict does."""
    kit = built(case.file, folder, case.options)
    printed = run([str(kit / "build" / "classify"), *map(str, images)], folder)
    found = answers(printed)
    if case.file.parent.name == "tflite":  # real photographs
        assert_same(found, expected(case, images), atol=0.05)  # Pillow 13's order of passes
    else:
        assert_same(found, expected_columns_first(case, images))
    return printed


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["softmax", "int8", "batch"])
def test_programs_of_our_exports_answer_as_predict_does(
    name: str, images: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = exported_cases(tmp_path_factory.getbasetemp())[name]
    printed = check(case, images, tmp_path)
    assert any(label and label in printed for label in CLEAN)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["coral", "two int8 classes"])
def test_programs_of_files_of_others_answer_as_predict_does(name: str, shared: Path, tmp_path: Path) -> None:
    taken = sorted((shared / "foreign" / "images").rglob("*.jpg"))[::5][:64]
    check(foreign_cases(shared)[name], taken, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["squash", "flexible"])
def test_onnx_programs_answer_as_predict_does(
    name: str, images: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ours = exported_cases(tmp_path_factory.getbasetemp()) if name == "flexible" else onnx_cases(tmp_path)
    check(ours[name], images, tmp_path)


def open_network(path: Path) -> Path:
    """A file of others without a record, that takes any number of images of any size."""
    weights = np.random.default_rng(0).standard_normal((len(LABELS), 3, 3, 3), dtype=np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["y"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, "h", "w"]), ("y", ["n", len(LABELS)]))
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_file_of_others_with_open_sizes_takes_the_size_that_the_kit_was_written_for(
    images: list[Path], tmp_path: Path
) -> None:
    file = open_network(tmp_path / "open.onnx")
    check(Case(file, ModelOptions(preprocess="imagenet", labels=LABELS, resolution=(24, 40))), images, tmp_path)


@pytest.mark.nightly
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
    monkeypatch.setattr("mobilezoo.workflows.kit.tried", lambda path, record, kind: record)
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
