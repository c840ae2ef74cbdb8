"""Files and photographs that every kind of kit is built with, and the answers that it must give."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec, Preprocessing
from mobilezoo.testing.targets import SmallNet, export_files
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.predict import predict
from mobilezoo_export import ExportSpec
from mobilezoo_export.records import ExportOptions
from tests.mobilezoo.workflows.test_try_file import network

LABELS = (
    'plain "quoted"',
    "new\nline",
    "naïve 猫 🐈",
    "back\\slash ${x} {{file}}",
    "%d %s",
    "`a`|b",
    "",
    "g",
    "h",
    "i",
)
"""Names that break careless templates."""
CLEAN = tuple(" ".join(label.split()) for label in LABELS)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


PREPARATIONS = {
    "center bicubic": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "squash bilinear": Preprocessing(
        mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_mode="squash", crop_pct=1.0
    ),
    "border lanczos": Preprocessing(
        mean=(0.4, 0.5, 0.6), std=(0.5,) * 3, interpolation="lanczos", crop_mode="border", crop_pct=1.2
    ),
    "nearest": Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="nearest", crop_pct=0.95),
    "box": Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="box"),
    "hamming": Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="hamming", crop_pct=3.0),
}

RESIZE = Image.Image.resize


def columns_first(image: Image.Image, size: tuple[int, int], how: int) -> Image.Image:
    """Pillow's resize in the order of its passes before version 13."""
    if how == Image.Resampling.NEAREST:
        return RESIZE(image, size, how)
    return RESIZE(RESIZE(image, (size[0], image.height), how), size, how)


Guesses = list[list[tuple[int, float]]]
"""(class, probability) of the best five of every image."""


class Case(NamedTuple):
    """A file and how it is read."""

    file: Path
    options: ModelOptions = NO_OPTIONS


def photographs(folder: Path, count: int = 64) -> list[Path]:
    """JPEGs of many sizes, some grey, some turned by EXIF: soft colors with edges."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        width, height = (int(side) for side in rng.integers(40, 400, 2))
        rough = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        image = rough.resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9)) if number % 4 == 0 else 1
        paths.append(folder / f"{number:02}.jpg")
        (image.convert("L") if number % 16 == 5 else image).save(paths[-1], quality=90, exif=exif)
    return paths


def onnx_cases(folder: Path) -> dict[str, Case]:
    """ONNX files with records of all crop modes, of two orders of colors, and without labels."""
    how = {"mean": (0.4, 0.5, 0.6), "std": (0.5,) * 3}
    records = {
        "center": {"preprocessing": Preprocessing(**IMAGENET), "labels": LABELS},
        "squash": {
            "preprocessing": Preprocessing(**how, interpolation="bilinear", crop_mode="squash", crop_pct=1.0),
            "input": InputSpec(shape=(1, 3, 16, 16), colors="BGR"),
            "labels": (),
        },
        "border": {
            "preprocessing": Preprocessing(**how, interpolation="lanczos", crop_mode="border", crop_pct=1.2),
            "output": "sigmoid",
        },
        "nearest": {"preprocessing": Preprocessing(**how, interpolation="nearest", crop_pct=0.95)},
        "hamming": {"preprocessing": Preprocessing(**how, interpolation="hamming", crop_pct=3.0)},
    }
    return {name: Case(network(folder / f"{name}.onnx", **changes)) for name, changes in records.items()}


@cache
def exported_cases(folder: Path) -> dict[str, Case]:
    """Files of our own export: softmax, uint8 images, int8 at the borders, open sizes."""
    made = (
        ("softmax", "litert", "fp32", ExportOptions(softmax=True), (24, 40), 1),
        ("image", "litert", "fp32", ExportOptions(image=True, layout="NCHW"), (32, 32), 1),
        ("int8", "litert", "int8", ExportOptions(int8_io=True), (32, 32), 1),
        ("batch", "litert", "int8", ExportOptions(), (32, 32), 2),
        ("flexible", "onnx", "fp32", ExportOptions(flexible="both", image=True), (32, 32), 1),
    )
    cases = {}
    for name, target, precision, options, size, batch in made:
        spec = ExportSpec(
            model="small",
            resolution=size,
            batch=batch,
            preprocessing=Preprocessing(**IMAGENET),
            labels=LABELS,
            options=options,
        )
        rng = np.random.default_rng(1)
        images = [rng.standard_normal((16, 3, *size)).astype(np.float32)]
        (folder / name).mkdir()
        (result,) = export_files(SmallNet(), spec, [target], [precision], folder / name, calibration=images)
        assert result.path is not None, result.reason
        cases[name] = Case(Path(result.path))
    return cases


def foreign_cases(shared: Path) -> dict[str, Case]:
    """Trained files of others: uint8 in and out, two classes in float and in int8."""
    folder, names = shared / "foreign" / "tflite", (shared / "foreign" / "imagenet_labels_1001.txt")
    labels = tuple(names.read_text(encoding="utf-8").splitlines())
    return {
        "coral": Case(
            folder / "coral_mobilenet_v1_0.25_128_quant.tflite", ModelOptions(preprocess="raw", labels=labels)
        ),
        "two classes": Case(folder / "mlperf_tiny_vww_96_float.tflite", ModelOptions(preprocess="unit")),
        "two int8 classes": Case(folder / "mlperf_tiny_vww_96_int8.tflite", ModelOptions(preprocess="unit")),
    }


def expected(case: Case, images: list[Path]) -> Guesses:
    """(class, probability) of the best five of every image, by `mobilezoo predict`."""
    found = predict(str(case.file), images, case.options)
    return [[(guess.index, guess.probability) for guess in one.best] for one in found]


def expected_columns_first(case: Case, images: list[Path]) -> Guesses:
    """The same with Pillow's resize as it was before version 13, whose arithmetic kits repeat."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", columns_first)
        return expected(case, images)


def answers(text: str) -> Guesses:
    """The same of what a kit printed: a line with the image's name, then lines `12.34 %  index  label`."""
    found: Guesses = []
    for line in text.splitlines():
        words = line.split()
        if line.startswith(" ") and words[1:2] == ["%"]:
            found[-1].append((int(words[2]), float(words[0]) / 100))
        else:
            found.append([])
    return found


def assert_same(found: Guesses, wanted: Guesses, atol: float = 1.5e-4) -> None:
    """The best class of every image is the same, and the probabilities of the best five are; two places are printed."""
    assert [one[0][0] for one in found] == [one[0][0] for one in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        shares = ([share for _, share in one] for one in (mine, theirs))
        np.testing.assert_allclose(*shares, atol=atol)
