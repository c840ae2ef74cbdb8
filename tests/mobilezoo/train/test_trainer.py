"""A run that was killed ends with the unbroken run's metrics; bad input is one line; a full disk loses nothing."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.config import load_record
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.train import checkpoints, trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.load_model import load_model

TINY_MODEL = """# a network small enough for tests
family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ds, depth: 1, kernel: 3, stride: 1, expansion: 1, width: 8}
  - {block: ir, depth: 1, kernel: 3, stride: 2, expansion: 2, width: 16, attention: coord}
"""
RECIPE = """# a run small enough for tests
model: {model}
data:
  source: digits
  batch_size: 128
  workers: 0
  augment: {{auto_augment: rand-m5-mstd0.5, mixup: 0.2, cutmix: 0.5, random_erasing: 0.1, hflip: 0.0}}
train:
  epochs: 4
  device: cpu
  resolution: 16
  ema: {{decay: 0.95}}
  optimizer: {{lr: 5e-3}}
  schedule: {{warmup_epochs: 1, noise: [0.3, 0.9]}}
"""
SCORES = ("epoch", "train_loss", "val_loss", "val_top1", "val_top5", "lr")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    model = tmp_path / "tiny.yaml"
    model.write_text(TINY_MODEL)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=model))
    return path


def scores(run: Path) -> list[dict[str, float]]:
    return [{k: row[k] for k in SCORES} for row in json.loads((run / "metrics.json").read_text())]


def test_a_run_can_be_moved_away_from_its_networks_yaml(recipe: Path, tmp_path: Path) -> None:
    config = load_record(TrainConfig, recipe, ("train.epochs=1", "train.schedule.warmup_epochs=0"))
    trainer.train(config, tmp_path / "run", show_progress=False)
    (tmp_path / "tiny.yaml").unlink()
    weights = (tmp_path / "run").rename(tmp_path / "moved") / "best.safetensors"
    assert load_model(str(weights)).name == "tiny"
    weights.with_suffix(".yaml").unlink()
    with pytest.raises(ConfigError, match=r"config file not found.*tiny\.yaml"):
        load_model(str(weights))


def test_a_run_leaves_best_weights_config_environment_and_metrics(recipe: Path, tmp_path: Path) -> None:
    record = trainer.train(load_record(TrainConfig, recipe), tmp_path / "run", show_progress=False)
    history = scores(tmp_path / "run")
    assert len(history) == 4
    assert record.top1 == max(row["val_top1"] for row in history)
    assert load_record_of(Checkpoint, tmp_path / "run" / "best.safetensors") == record
    assert {"config.yaml", "environment.json", "metrics.csv", "tensorboard"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.slow
def test_resuming_after_any_epoch_repeats_the_unbroken_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_record(TrainConfig, recipe)
    trainer.train(config, tmp_path / "whole", show_progress=False)
    real = trainer.train_epoch

    def stop_at_third(config: TrainConfig, state: Any, progress: Any, *rest: Any) -> dict[str, float]:
        if progress.epoch == 2:
            raise KeyboardInterrupt
        return real(config, state, progress, *rest)

    monkeypatch.setattr(trainer, "train_epoch", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(config, tmp_path / "broken", show_progress=False)
    monkeypatch.setattr(trainer, "train_epoch", real)
    trainer.train(config, tmp_path / "broken", resume=True, show_progress=False)
    assert scores(tmp_path / "broken") == scores(tmp_path / "whole")
    whole, broken = (checkpoints.latest_checkpoint(tmp_path / n / "checkpoints")[0] for n in ("whole", "broken"))
    assert whole is not None
    assert broken is not None
    assert all(torch.equal(whole.model[k], broken.model[k]) for k in whole.model)


@pytest.mark.nightly
def test_ten_kills_at_random_moments_lose_three_updates_at_most(recipe: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mobilezoo",
        "train",
        str(recipe),
        "train.epochs=12",
        "train.save_every_steps=3",
        "-q",
        "--out",
    ]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    moments, kills, run = random.Random(7), 0, tmp_path / "killed"
    while kills < 10:
        before = len(list((run / "checkpoints").glob("epoch-*"))) if run.exists() else 0
        resume = ["--resume"] if (run / "config.yaml").exists() else []
        process = subprocess.Popen([*command, str(run), *resume], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + moments.uniform(3.0, 9.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""
            break
        os.kill(process.pid, moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.wait()
        kills += 1
        assert len(list((run / "checkpoints").glob("epoch-*"))) >= min(before, 1)
    done = subprocess.run([*command, str(run), "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert scores(run) == scores(tmp_path / "whole")


@pytest.mark.slow
def test_a_torn_checkpoint_is_passed_over_in_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_record(TrainConfig, recipe, ["train.epochs=2"])
    trainer.train(config, tmp_path / "run", show_progress=False)
    torn = tmp_path / "run" / "checkpoints" / "epoch-0002" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-7])
    state, lines = checkpoints.latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert state is not None
    assert state.epoch == 1
    assert len(lines) == 1
    assert "epoch-0002 is damaged (model.safetensors has another checksum)" in lines[0]
    capsys.readouterr()
    trainer.train(config, tmp_path / "run", resume=True, show_progress=False)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "epoch-0002 is damaged" in line] == said  # and nothing else in a quiet run
    assert len(said) == 1


def test_a_full_disk_keeps_the_checkpoint_before(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_record(TrainConfig, recipe)
    real, calls = torch.save, []

    def full_at_second(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(torch, "save", full_at_second)
    with pytest.raises(MobilezooError, match="No space left on device"):
        trainer.train(config, tmp_path / "run", show_progress=False)
    state, lines = checkpoints.latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert state is not None
    assert (state.epoch, lines) == (1, [])
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-0001"]


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start_tells_to_resume(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command would be refused: the run was begun."""
    config = load_record(TrainConfig, recipe, ["train.epochs=2"])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        told = r"run': No space left on device: free some space; what was saved is whole; to go on: train it --resume$"
        with pytest.raises(MobilezooError, match=told):
            trainer.train(config, tmp_path / "run", resume_command="train it --resume")
    trainer.train(config, tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert f"nothing to resume in {tmp_path / 'run'}: starting from the beginning" in said
    assert "" not in said.splitlines(), "a bar that no terminal shows leaves no empty line"


def test_an_existing_run_is_not_overwritten_and_not_resumed_with_another_config(recipe: Path, tmp_path: Path) -> None:
    config = load_record(TrainConfig, recipe, ["train.epochs=2"])
    trainer.train(config, tmp_path / "run", show_progress=False)
    with pytest.raises(MobilezooError, match="--resume"):
        trainer.train(config, tmp_path / "run", show_progress=False)
    with pytest.raises(ConfigError, match=r"train\.optimizer\.lr"):
        trainer.train(
            load_record(TrainConfig, recipe, ["train.epochs=2", "train.optimizer.lr=0.1"]),
            tmp_path / "run",
            resume=True,
            show_progress=False,
        )


@pytest.mark.parametrize(
    "change", [("head: 32", "head: 48"), ("depth: 1, kernel: 3, stride: 2", "depth: 2, kernel: 3, stride: 2")]
)
@pytest.mark.slow
def test_a_run_is_not_resumed_with_another_network_of_the_same_path(
    recipe: Path, tmp_path: Path, change: tuple[str, str]
) -> None:
    config = load_record(TrainConfig, recipe, ["train.epochs=2"])
    trainer.train(config, tmp_path / "run", show_progress=False)
    Path(config.model).write_text(TINY_MODEL.replace(*change))
    with pytest.raises(ConfigError, match=r"another network than config\.model builds now \(.+\): undo") as told:
        trainer.train(config, tmp_path / "run", resume=True, show_progress=False)
    assert "\n" not in str(told.value)


def test_a_loss_that_is_not_finite_names_step_layer_and_remedy(recipe: Path, tmp_path: Path) -> None:
    config = load_record(TrainConfig, recipe, ["train.optimizer.lr=1e6", "train.optimizer.name=sgd"])
    with pytest.raises(MobilezooError, match=r"not finite at epoch \d+, step \d+ \(first in layer '.+'.*lower train"):
        trainer.train(config, tmp_path / "run", show_progress=False)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.device=cuda:7", "not available|no device"),
        ("train.device=phone", "is no device"),
        ("train.optimizer.name=adamm", "did you mean"),
        ("data.batch_size=5000", "fewer than one batch"),
        ("model_args.wings=2", "model_args"),
        ("model_args.global_pool=foo", "model_args of .*Invalid pool type: foo"),
        ("train.optimizer.name=lbfgs", "unknown optimizer 'lbfgs': known: ada"),
        ("model=shvit_s9", "did you mean"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(
    recipe: Path, tmp_path: Path, override: str, expected: str
) -> None:
    with pytest.raises(MobilezooError, match=expected):
        trainer.train(load_record(TrainConfig, recipe, [override]), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_gradient_accumulation_counts_updates_not_batches(recipe: Path) -> None:
    config = load_record(TrainConfig, recipe, ["train.accumulate=3"])
    state = trainer.assemble(config)
    assert trainer.updates_per_epoch(config, state) == 11 // 3
