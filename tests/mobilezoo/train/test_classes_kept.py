"""The class list of a run is written down; a resumed run, another process or an eval that sees another is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mobilezoo.config import load_record
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError, DataError, MobilezooError
from mobilezoo.train import distributed, trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.evaluate import Loading, evaluate
from mobilezoo.workflows.model_options import ModelOptions

NONE = ModelOptions()
RECIPE = """model: mnasnet_small
data: {{source: "folder:{data}", workers: 0, batch_size: 4}}
train: {{epochs: 1, device: cpu, resolution: 32, schedule: {{warmup_epochs: 0}}}}
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for shade, name in enumerate(("A", "a", "B")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("L", (8, 8), shade * 100 + number).save(folder / f"{number}.png")
    return tmp_path / "photos"


def recipe(photos: Path, *overrides: str) -> TrainConfig:
    path = photos.parent / "recipe.yaml"
    path.write_text(RECIPE.format(data=photos))
    return load_record(TrainConfig, path, overrides)


def test_another_class_list_is_refused_by_resume_and_eval(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    record = trainer.train(recipe(photos), run, show_progress=False)
    assert json.loads((run / "classes.json").read_text()) == ["A", "a", "B"] == list(record.labels)
    best, source = str(run / "best.safetensors"), f"folder:{photos}"
    assert evaluate(best, source, NONE, loading=Loading(4, 0)).top1 == record.top1
    for split in ("train", "val"):
        (photos / split / "B").rename(photos / split / "C")
    with pytest.raises(ConfigError, match=r"the first difference is class 2, 'B' there and 'C' here"):
        trainer.train(recipe(photos), run, resume=True, show_progress=False)
    with pytest.raises(ConfigError, match=r"the first difference is class 2, 'B' there and 'C' here"):
        evaluate(best, source, NONE, loading=Loading(4, 0))
    # The run's own list serves as a map for data in another order or with fewer classes.
    (photos / "only" / "val").mkdir(parents=True)
    (photos / "val" / "a").rename(photos / "only" / "val" / "a")
    few = evaluate(best, f"folder:{photos}/only", NONE, loading=Loading(4, 0), classes=str(run / "classes.json"))
    assert few.images == 4
    assert few == evaluate(best, f"folder:{photos}/only", NONE, loading=Loading(4, 0), classes="labels")


def test_a_process_that_sees_other_data_is_refused_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(seen: list[Any], mine: Any) -> None:
        seen[:] = [mine, other]

    monkeypatch.setattr("torch.distributed.all_gather_object", gathered)
    both, cpu = Distributed(0, 2), torch.device("cpu")
    other: Any = (("A", "b"), [4, 4])
    with pytest.raises(ConfigError, match=r"process 0 knows 2 classes.*first difference is class 1, 'a' there and 'b'"):
        distributed.require_same_data(("A", "a"), [4, 4], cpu, both)
    other = (("A", "a"), [4, 5])
    with pytest.raises(ConfigError, match="process 1 has"):
        distributed.require_same_data(("A", "a"), [4, 4], cpu, both)
    other = (("A", "a"), [4, 4])
    distributed.require_same_data(("A", "a"), [4, 4], cpu, both)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (("model=shvit_s1", "train.resolution=64", "data.batch_size=1"), "cannot learn from a batch of one image"),
        (
            ("train.resolution=64", "data.batch_size=1", "data.augment.mixup=0.2"),
            "mix pairs of images: set data.batch_size to 2 or more",
        ),
        (("data.batch_size=13",), "12 training images are fewer than one batch of 13"),
        (("train.accumulate=4",), "fewer than one update of 4 batches of 4: set train.accumulate to at most 3"),
    ],
)
def test_batches_that_cannot_work_are_one_line_before_anything_is_written(
    photos: Path, tmp_path: Path, overrides: tuple[str, ...], match: str
) -> None:
    with pytest.raises(MobilezooError, match=match):
        trainer.train(recipe(photos, *overrides), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_trains_where_the_network_can(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.png"):
        if path.stem != "0":
            path.unlink()
    record = trainer.train(
        recipe(photos, "data.batch_size=1", "train.resolution=64"), tmp_path / "run", show_progress=False
    )
    assert record.top1 is not None


def test_a_stream_that_ends_early_is_one_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilezoo.data.loaders.TrainBatches.epoch", lambda *_: iter(()))
    with pytest.raises(DataError, match="ended after 0 of 3 updates"):
        trainer.train(recipe(photos), tmp_path / "run", show_progress=False)


def test_eval_reads_the_data_of_the_record_as_training_did(photos: Path, tmp_path: Path) -> None:
    (photos / "val").rename(photos / "dev")
    for path in (photos / "dev").rglob("*.png"):
        Image.open(path).convert("LA").save(path)  # transparent parts are laid on the background
    changed = ("data.val_split=dev", "data.background=black", "data.exif=false")
    trained = trainer.train(recipe(photos, *changed), tmp_path / "run", show_progress=False)
    best = str(tmp_path / "run" / "best.safetensors")
    assert evaluate(best, None, NONE, loading=Loading(4, 0)).top1 == trained.top1
    photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="dataset folder not found"):
        evaluate(best, None, NONE, loading=Loading(4, 0))
    moved = evaluate(best, f"folder:{tmp_path}/moved", NONE, loading=Loading(4, 0))
    assert (moved.images, moved.top1) == (12, trained.top1)
    with pytest.raises(ConfigError, match="no record says what 'mnasnet_small' was trained on: pass --data"):
        evaluate("mnasnet_small", None, NONE, loading=Loading(4, 0))
