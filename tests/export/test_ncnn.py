"""ncnn folders that are written by hand: what is read of them, and every way they are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError
from mobilezoo.testing.fuzzing import damages, error_line
from mobilezoo_export import ExportOptions, ExportSpec, FileApart, load_exporter, load_runner
from mobilezoo_export.ncnn_param import read_layers
from mobilezoo_export.records import Reading
from mobilezoo_export.targets import ncnn as target

pytest.importorskip("ncnn", reason="needs the extra 'ncnn': pip install 'mobilezoo[ncnn]'")

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
LINES = (
    "7767517",
    "3 3",
    "Input input 0 1 image",
    "Pooling pool 1 1 image pooled 0=1 4=1",
    "InnerProduct head 1 1 pooled logits 0=4 1=0 2=12",
)
"""The mean over rows and columns, then a linear layer from 3 channels to 4 classes."""
ABOUT = {
    "precision": "fp32",
    "input": {"mean": [0.0] * 3, "std": [1.0] * 3, "resolution": [6, 5], "values": "(pixels / 255 - mean) / std"},
    "output": "logits",
    "labels": list("abcd"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "hand.ncnn"
    folder.mkdir()
    (folder / target.PARAM).write_text("\n".join(LINES) + "\n")
    (folder / target.WEIGHTS).write_bytes(bytes(4) + WEIGHTS.tobytes())  # four zero bytes: plain floats follow
    (folder / target.METADATA).write_text(json.dumps(ABOUT))
    return folder


def opened(path: Path) -> np.ndarray:
    with FileApart(path) as file:
        return file.run(np.ones((1, 3, 6, 5), np.float32))


def changed(part: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / part).write_text(edit((folder / part).read_text()))

    return damage


def test_a_folder_that_lost_its_record_is_described_by_its_parts(model: Path) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
    with FileApart(model) as file:
        found, about = file.run(images), file.artifact
    np.testing.assert_allclose(found, images.mean((2, 3)) @ WEIGHTS.T, rtol=1e-5, atol=1e-6)
    assert (about.target, about.input.shape, about.labels) == ("ncnn", (1, 3, 6, 5), tuple("abcd"))
    reading = load_exporter("ncnn").reading(model)
    assert isinstance(reading, Reading)
    assert dict(reading.ops) == {"Input": 1, "Pooling": 1, "InnerProduct": 1}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (changed(target.PARAM, lambda text: text.replace("Pooling", "pnnx.Expression")), "no layer 1 pnnx.Expression"),
        (changed(target.PARAM, lambda text: text.replace("3 3", "3 9")), "its counts '3 9' are not those"),
        (
            changed(target.PARAM, lambda text: text.replace("1 1 pooled logits", "2 1 none logits")),
            "no layer before it",
        ),
        (changed(target.PARAM, lambda text: text.replace("1 1 image", "1 900 image")), "line 4 names fewer blobs"),
        (changed(target.PARAM, lambda text: "{}"), "does not begin with 7767517"),
        (changed(target.METADATA, lambda text: text.replace("[6, 5]", "[6, 500000]")), "a size of 1×3×6×500000"),
        (changed(target.METADATA, lambda text: "{"), "no readable metadata.json"),
        (lambda folder: (folder / target.METADATA).unlink(), "no readable metadata.json"),
        (lambda folder: (folder / target.WEIGHTS).write_bytes(bytes(20)), "model.ncnn.bin is missing or damaged"),
        (lambda folder: (folder / target.WEIGHTS).unlink(), "model.ncnn.bin is missing or damaged"),
    ],
)
def test_a_damaged_part_is_one_line_that_names_it(model: Path, damage: Callable[[Path], None], why: str) -> None:
    damage(model)
    with pytest.raises(ExportError, match=why) as caught:
        load_runner(model)
    assert "\n" not in str(caught.value)
    assert "hand.ncnn" in str(caught.value)


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_damaged_bytes_run_or_are_one_line(model: Path, count: int) -> None:
    parts = {part: (model / part).read_bytes() for part in (target.PARAM, target.WEIGHTS)}
    for number, (part, data) in enumerate(damages(parts, count)):
        for name, whole in parts.items():
            (model / name).write_bytes(data if name == part else whole)
        line = error_line(lambda: opened(model), f"round {number} of {part}")
        assert not line or "hand.ncnn" in line


def test_what_ncnn_cannot_take_is_refused_with_the_remedy(tiny_spec: ExportSpec) -> None:
    exporter = load_exporter("ncnn")

    def reason(**changes: object) -> str:
        return str(exporter.unsupported_reason(None, tiny_spec.model_copy(update=changes)))  # type: ignore[arg-type]

    assert "ncnn2table and ncnn2int8" in reason(precision="int8")
    assert "choose from fp32, fp16" in reason(precision="w8a8")
    assert "one by one, not 4: leave batch out" in reason(batch=4)
    assert "one file per resolution" in reason(options=ExportOptions(flexible="both"))


def test_a_converter_that_writes_nothing_is_one_line(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no program")
    with pytest.raises(ExportError, match=r"^tiny: pnnx ended with status \d+ and wrote no model: \S[^\n]*$"):
        target._run_pnnx(tmp_path, tiny_spec)


@pytest.mark.nightly
def test_images_go_in_as_pixels_and_equal_networks_give_equal_bytes(
    tiny: object, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    from mobilezoo.testing.targets import export_files

    spec = tiny_spec.model_copy(update={"options": ExportOptions(image=True, softmax=True)})
    made: list[Artifact] = []
    for name in ("a", "b"):
        (result,) = export_files(tiny, spec, ["ncnn"], ["fp32"], tmp_path / name)  # type: ignore[arg-type]
        assert result.artifact is not None, result.reason
        made.append(result.artifact)
    assert made[0].sha256 == made[1].sha256
    assert made[0].input.dtype == "uint8"
    folder = tmp_path / "a" / made[0].path
    (tmp_path / "a" / f"{made[0].path}.json").unlink()
    images = np.random.default_rng(0).standard_normal((1, *spec.shape[1:])).astype(np.float32)
    with FileApart(folder) as alone, FileApart(tmp_path / "b" / made[1].path) as recorded:
        assert read_layers(folder / target.PARAM)
        np.testing.assert_array_equal(alone.run(images), recorded.run(images))
