"""What a run shows and leaves: memory, waiting, loggers, curves, checkpoints by time; and what faults look like."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilezoo.cli.main import main
from mobilezoo.config import load_record
from mobilezoo.errors import DataError, MobilezooError
from mobilezoo.train import trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.header import RunClock, header, in_words
from mobilezoo.train.resuming import Progress
from mobilezoo.train.run_folder import RunFolder

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 1, kernel: 3, stride: 2, expansion: 2, width: 8}
"""
HEADER = ("network", "data", "batch", "device", "epochs", "folder")


def recipe(folder: Path, *overrides: str) -> TrainConfig:
    (folder / "tiny.yaml").write_text(MODEL)
    (folder / "recipe.yaml").write_text(
        f"model: {folder / 'tiny.yaml'}\n"
        "data: {source: digits, batch_size: 128, workers: 0, augment: {hflip: 0.0}}\n"
        "train: {epochs: 3, device: cpu, resolution: 16, schedule: {warmup_epochs: 0}}\n"
    )
    return load_record(TrainConfig, folder / "recipe.yaml", overrides)


def test_rows_environment_and_events_hold_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.train(recipe(tmp_path), tmp_path / "run", show_progress=True)
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["images_per_s"] > 0 and 0 < row["data_wait_share"] < 1 and row["memory_mb"] > 50 for row in rows)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert set(environment["git"]) == {"commit", "dirty"}
    assert environment["packages"]["torch"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val_top1")] == pytest.approx([row["val_top1"] for row in rows])
    said = capsys.readouterr().err.splitlines()
    told = [next(line for line in said if line.startswith(word)).split(maxsplit=1)[1] for word in HEADER]
    assert told[0].endswith("tiny.yaml: 1.36 k parameters, 30.78 k MACs")
    assert told[1:3] == [
        "digits: 10 classes, 1,437 training and 360 validation images",
        "128 images of 16 px, 11 updates per epoch",
    ]
    assert told[3].startswith("cpu, float32, ")
    assert told[4:] == ["3, a checkpoint after each", str(tmp_path / "run")]
    epochs = [line for line in said if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    assert [line.endswith(" left") for line in epochs] == [True, True, False]
    assert max(map(len, epochs)) <= 80


@pytest.mark.slow
def test_weights_and_biases_gets_every_row_and_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MobilezooError, match="pip install wandb"):
        trainer.train(recipe(tmp_path, "train.wandb=zoo"), tmp_path / "none", show_progress=False)
    seen: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda row, step: seen.append((step, row["val_top1"])), finish=lambda exit_code: seen.append(exit_code)
    )
    started: dict[str, Any] = {}
    wandb = types.SimpleNamespace(init=lambda **settings: started.update(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trainer.train(recipe(tmp_path, "train.wandb=zoo"), tmp_path / "run", show_progress=False)
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert seen == [*((int(row["epoch"]), row["val_top1"]) for row in rows), 0]
    assert (started["project"], started["id"], started["config"]["train"]["epochs"]) == ("zoo", "run", 3)


@pytest.mark.slow
def test_the_last_checkpoints_stay_and_time_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(tmp_path, "train.keep=2", "train.save_every_min=1e-9")
    saved: list[str] = []
    real = trainer.save_checkpoint

    def noted(folder: Path, state: Any, keep: int) -> Path:
        saved.append(state.name)
        return real(folder, state, keep)

    monkeypatch.setattr(trainer, "save_checkpoint", noted)
    trainer.train(config, tmp_path / "run", show_progress=False)
    assert len(saved) == 3 * 11
    assert saved[:2] == ["epoch-0000-step-000001", "epoch-0000-step-000002"]
    left = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["epoch-0002-step-000010", "epoch-0003"]


@pytest.mark.slow
def test_two_runs_are_compared_with_curves(tmp_path: Path) -> None:
    for name in ("slow", "quick"):
        rate = "1e-4" if name == "slow" else "1e-2"
        config = recipe(tmp_path, f"train.optimizer.lr={rate}", "train.epochs=2")
        trainer.train(config, tmp_path / name, show_progress=False)
    with pytest.raises(SystemExit) as done:
        main(["report", str(tmp_path / "slow"), str(tmp_path / "quick"), "--out", str(tmp_path / "page.html")])
    assert done.value.code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('"slow') >= 1
    assert page.count('"quick') >= 1
    assert "val_top1" in page or "top-1" in page


def test_nan_in_the_first_step_names_it(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    state = trainer.assemble(config)
    with torch.no_grad():
        next(state.network.parameters())[0] = float("nan")
    real = trainer.assemble
    try:
        trainer.assemble = lambda *_: state  # type: ignore[assignment]
        with pytest.raises(MobilezooError, match=r"not finite at epoch 1, step 1 \(first in layer 'conv_stem', lr"):
            trainer.train(config, tmp_path / "run", show_progress=False)
    finally:
        trainer.assemble = real
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_an_empty_split_and_splits_of_other_classes_are_one_line(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("train/a", "train/b", "validation/a", "validation/b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for label in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "train" / label / "0.png")
    source = f"data.source=folder:{tmp_path / 'data'}"
    with pytest.raises(DataError, match="validation' holds no images"):
        trainer.train(recipe(tmp_path, source, "data.batch_size=2"), tmp_path / "run", show_progress=False)
    (tmp_path / "data" / "validation" / "a").rename(tmp_path / "data" / "validation" / "c")
    for label in ("b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "validation" / label / "0.png")
    with pytest.raises(MobilezooError, match=r"class 'c' of .*validation' is none of the 2 classes of the training"):
        trainer.train(recipe(tmp_path, source, "data.batch_size=2"), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_fit_ends_the_run_where_told_to(tmp_path: Path) -> None:
    config = recipe(tmp_path, "train.on_out_of_memory=stop")
    state = trainer.assemble(config)

    def full(_x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    state.forward = full
    batch = next(state.train_batches.epoch(0))
    with pytest.raises(MobilezooError, match="a batch of 128 images at 16 px does not fit the memory: set a smaller"):
        trainer.train_step(state, config, [batch], 0, lambda _: None)


def test_the_batch_tells_what_it_is_made_of_and_durations_are_words(tmp_path: Path) -> None:
    config = recipe(tmp_path, "train.accumulate=2", "data.augment.sizes=[16, 24x32]", "train.epochs=9")
    state = trainer.assemble(config)
    lines = header(config, state, RunFolder(tmp_path / "run"))
    assert lines[2] == "batch    128 x 2 accumulated = 256 images of 16, 24x32 px, 5 updates per epoch"
    clock, progress = RunClock(config, state, Progress([], [1.0, 1.0])), Progress([], [1.0] * 4)
    assert clock.left(progress).endswith(" left")
    assert clock.left(Progress([{}] * 9, [])) == ""
    assert clock.left(Progress([], [1.0])) == "", "nothing is known yet"
    words = {5: "5 s", 99: "99 s", 101: "2 min", 5900: "98 min", 6100: "1.7 h", 86400 * 3: "3.0 days"}
    assert {seconds: in_words(seconds) for seconds in words} == words
