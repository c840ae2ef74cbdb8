"""A trained network can always be exported: few images, other splits, data that is gone, another working folder."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import Artifact, load_record_of
from mobilezoo.cli.main import main
from mobilezoo.data import DataConfig, sample_batch
from mobilezoo.errors import DataError
from mobilezoo.workflows.export import spec_of
from mobilezoo.workflows.export_images import export_images
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.load_model import LoadedModel, load_model
from mobilezoo_export import ExportConfig

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 1, kernel: 3, stride: 1, expansion: 1, width: 8}
"""
COLORS = {"blue": (40, 40, 220), "red": (220, 40, 40)}


def pictures(root: Path, split: str, count: int) -> None:
    for name, color in COLORS.items():
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40, 40), (color[0], color[1] + i, color[2])).save(root / split / name / f"{i}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (splits train and dev, 6 held-out images) and `run`, trained on it by a relative path."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(MODEL)
    pictures(folder / "data", "train", 8)
    pictures(folder / "data", "dev", 3)
    data = ["data.source=folder:data", "data.val_split=dev", "data.batch_size=8", "data.workers=0"]
    length = ["train.epochs=1", "train.schedule.warmup_epochs=0", "train.device=cpu", "train.resolution=16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        says(["train", "digits", "model=tiny.yaml", *data, *length, "--out", "run", "-q"])
    return folder


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    """The weights and their record alone, as a colleague gets them: the data they name is not there."""
    for name in ("best.safetensors", "best.yaml"):
        shutil.copy(trained / "run" / name, tmp_path / name)
    record = json.loads((trained / "run" / "best.safetensors.json").read_text())
    record["data"]["source"] = f"folder:{tmp_path / 'gone'}"
    (tmp_path / "best.safetensors.json").write_text(json.dumps(record))
    return tmp_path / "best.safetensors"


def says(arguments: list[str]) -> int:
    """The exit code of a command."""
    try:
        main(arguments)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


SHOWN = Hooks(on_message=lambda text: print(text, file=sys.stderr))


def images_of(path: Path, data: str | None = None, calib: str | None = None, count: int = 64):  # type: ignore[no-untyped-def]
    loaded = load_model(str(path))
    return export_images(loaded, spec_of(loaded), ExportConfig(data=data, calib=calib, parity_images=count), SHOWN)


@pytest.mark.slow
def test_a_run_on_few_images_of_another_split_is_exported_from_any_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        says(["export", str(trained / "run" / "best.safetensors"), "--to", "onnx", "--out", str(tmp_path), "-q"]) == 0
    )
    (file,) = tmp_path.glob("*.fp32.onnx")
    parity = load_record_of(Artifact, file).parity
    assert parity is not None
    assert parity.images == 6
    assert parity.inputs == f"6 images of folder:{trained / 'data'} (split dev)"


def test_the_record_holds_the_whole_data_config_with_absolute_paths(trained: Path) -> None:
    data = load_model(str(trained / "run" / "best.safetensors")).data
    assert data is not None
    assert (data.source, data.val_split, data.batch_size) == (f"folder:{trained / 'data'}", "dev", 8)


@pytest.mark.slow
def test_without_its_data_fp32_is_compared_on_photographs_and_int8_refused_with_the_numbers(
    moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says(["export", str(moved), "--to", "onnx", "--precision", "fp32,int8", "--json", "-q"]) == 2
    out, err = capsys.readouterr()
    fp32, int8 = json.loads(out)
    assert fp32["status"] == "exported"
    assert fp32["artifact"]["parity"]["images"] == 64
    assert "photographs" in fp32["artifact"]["parity"]["inputs"]
    assert int8["status"] == "refused"
    assert int8["reason"] == "int8 needs at least 8 calibration images, got 0: pass more with --calib"
    assert [str(moved.parent / "gone") in line for line in err.strip().splitlines()] == [True]
    assert [p.name for p in (moved.parent / "export").glob("*int8*")] == []


def test_data_names_the_new_place_and_keeps_the_splits_of_training(moved: Path, trained: Path) -> None:
    found = images_of(moved, data=f"folder:{trained / 'data'}")
    assert found.parity.shape == found.calibration.shape == (6, 3, 16, 16)
    assert found.labelled is not None
    assert found.labelled.val_split == "dev"


def test_calib_serves_int8_alone_where_the_data_is_there(trained: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "other", "val", 10)  # the usual name of a split, not that of training
    best = trained / "run" / "best.safetensors"
    found = images_of(best, calib=f"folder:{tmp_path / 'other'}")
    assert (len(found.parity), len(found.calibration)) == (6, 20)
    assert found.labelled == load_model(str(best)).data


def test_calib_is_compared_on_too_where_nothing_else_is_known(moved: Path, trained: Path) -> None:
    found = images_of(moved, calib=f"folder:{trained / 'data'}")
    assert (len(found.parity), len(found.calibration)) == (6, 6)
    assert found.labelled is None


@pytest.mark.parametrize("named", ["data", "calib"])
def test_named_data_that_is_not_there_is_an_error(trained: Path, named: str) -> None:
    with pytest.raises(DataError, match="not found"):
        images_of(trained / "run" / "best.safetensors", **{named: "folder:nowhere"})


def test_a_network_nobody_trained_is_compared_and_calibrated_on_photographs() -> None:
    loaded: LoadedModel = load_model("mnasnet_small")
    found = export_images(loaded, spec_of(loaded), ExportConfig(parity_images=9), SHOWN)
    assert len(found.parity) == len(found.calibration) == 9
    assert found.labelled is None


def test_a_sample_is_spread_evenly_over_what_there_is(trained: Path) -> None:
    loaded = load_model(str(trained / "run" / "best.safetensors"))
    config = DataConfig(source=f"folder:{trained / 'data'}", val_split="dev")
    every, two = (sample_batch(config, 16, loaded.preprocessing, count) for count in (64, 2))
    assert len(every) == 6
    assert np.array_equal(two, every[[0, 5]])
