"""A run stopped in the middle of an epoch goes on bit for bit: weights, average, optimizer, order, randomness."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilezoo.cli.main import main
from mobilezoo.config import load_record
from mobilezoo.errors import RunStoppedError
from mobilezoo.files import sha256_of
from mobilezoo.train import checkpoints, trainer
from mobilezoo.train.config import TrainConfig

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 2, kernel: 3, stride: 1, expansion: 1, width: 8}
"""
RECIPE = """model: {model}
model_args: {{drop_path_rate: 0.3, drop_rate: 0.2}}
data:
  source: digits
  batch_size: 128
  workers: 0
  augment: {{auto_augment: rand-m5-mstd0.5, mixup: 0.2, cutmix: 0.5, random_erasing: 0.3, repeats: 2, sizes: [16, 32]}}
train:
  epochs: 2
  device: cpu
  resolution: 16
  accumulate: 2
  keep: 9
  ema: {{decay: 0.95}}
  schedule: {{warmup_epochs: 1, noise: [0.3, 0.9]}}
"""


def recipe_of(folder: Path) -> TrainConfig:
    (folder / "tiny.yaml").write_text(MODEL)
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "tiny.yaml"))
    return load_record(TrainConfig, folder / "recipe.yaml")


def stop_after(
    monkeypatch: pytest.MonkeyPatch, updates: int, signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)
) -> None:
    """Signals arrive while the given update of this process is under way."""
    real, done = trainer.train_step, []

    def counted(*args: Any) -> float:
        done.append(1)
        if len(done) == updates:
            for number in signals:
                signal.raise_signal(number)
        return real(*args)

    monkeypatch.setattr(trainer, "train_step", counted)


def last_state(run: Path) -> checkpoints.RunState:
    state, damaged = checkpoints.latest_checkpoint(run / "checkpoints")
    assert state is not None
    assert not damaged
    return state


def assert_same(a: Any, b: Any) -> None:
    """Equal bit for bit, at any depth."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key not in ("images_per_s", "data_wait_share", "memory_mb"):
                assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others must equal, its recipe beside it."""
    folder = tmp_path_factory.mktemp("unbroken")
    trainer.train(recipe_of(folder), folder / "whole", show_progress=False)
    return folder / "whole"


@pytest.mark.parametrize(("updates", "workers"), [(5, 0), pytest.param(7, 2, marks=pytest.mark.slow)])
def test_sigterm_saves_and_the_resumed_run_equals_the_unbroken_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: int, workers: int
) -> None:
    config = load_record(TrainConfig, unbroken.parent / "recipe.yaml", [f"data.workers={workers}"])
    with monkeypatch.context() as patched:
        stop_after(patched, updates)
        with pytest.raises(RunStoppedError, match=rf"epoch {updates // 6}, step {updates % 5 or 5}.*to go on"):
            trainer.train(config, tmp_path / "broken", show_progress=False)
    assert last_state(tmp_path / "broken").step == (updates % 5 or 5)
    trainer.train(config, tmp_path / "broken", resume=True, show_progress=False)
    whole, broken = last_state(unbroken), last_state(tmp_path / "broken")
    for name in ("model", "ema", "optimizer", "scaler", "history"):
        assert_same(getattr(whole, name), getattr(broken, name))
    assert sha256_of(unbroken / "best.safetensors") == sha256_of(tmp_path / "broken" / "best.safetensors")


def test_sigterm_exits_with_the_code_schedulers_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_of(tmp_path)
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit) as done:
        main(["train", str(tmp_path / "recipe.yaml"), "-q", "--out", str(tmp_path / "run")])
    assert done.value.code == 143
    assert capsys.readouterr().err.startswith("stopped: SIGTERM after epoch 0, step 2: saved in ")


def test_ctrl_c_saves_and_prints_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_of(tmp_path)
    run, before = tmp_path / "my run", signal.getsignal(signal.SIGINT)
    for signals, code, args in (
        ((signal.SIGINT, signal.SIGTERM), 143, (str(tmp_path / "recipe.yaml"), "--out", str(run))),  # as torchrun does
        ((signal.SIGINT,), 130, (str(run), "--resume")),
    ):
        with monkeypatch.context() as patched:
            stop_after(patched, 2, signals)
            with pytest.raises(SystemExit) as done:
                main(["train", "-q", *args])
        assert done.value.code == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"stopped: Ctrl-C after epoch 0, step 4: saved in {run}; to go on: mobilezoo train '{run}' --resume"
    )
    assert last_state(run).step == 4
    assert not (run / "train.lock").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("every", "kept"), [("null", "has no checkpoint yet"), ("1", "keeps epoch-0000-step-000001")])
def test_the_second_ctrl_c_ends_at_once_and_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], every: str, kept: str
) -> None:
    recipe_of(tmp_path)
    stop_after(monkeypatch, 2, (signal.SIGINT, signal.SIGINT))
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as done:
        main(["train", str(tmp_path / "recipe.yaml"), f"train.save_every_steps={every}", "-q", "--out", str(run)])
    assert done.value.code == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (f"stopped: Ctrl-C twice: ended at once, {run} {kept}; to go on: mobilezoo train {run} --resume")


def test_a_damaged_newest_checkpoint_costs_only_the_updates_since_the_one_before(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_record(TrainConfig, unbroken.parent / "recipe.yaml", ["train.save_every_steps=2"])
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(RunStoppedError):
            trainer.train(config, tmp_path / "broken", show_progress=False)
    newest = tmp_path / "broken" / "checkpoints" / "epoch-0000-step-000003"
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:100])
    state, damaged = checkpoints.latest_checkpoint(tmp_path / "broken" / "checkpoints")
    assert state is not None
    assert state.step == 2
    assert len(damaged) == 1
    trainer.train(config, tmp_path / "broken", resume=True, show_progress=False)
    whole = checkpoints.latest_checkpoint(unbroken / "checkpoints")[0]
    broken = checkpoints.latest_checkpoint(tmp_path / "broken" / "checkpoints")[0]
    assert whole is not None
    assert broken is not None
    assert_same(whole.model, broken.model)


def test_a_batch_that_does_not_fit_is_halved_once_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = recipe_of(tmp_path)
    state = trainer.assemble(config)
    from mobilezoo.train.step import train_step

    real = state.forward

    def small_machine(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x)

    state.forward = small_machine
    lines: list[str] = []
    batches = state.train_batches.epoch(0)
    loss = train_step(state, config, [next(batches)], 0, lines.append)
    assert loss > 0
    assert state.micro_batches == 2
    assert lines == ["a batch of 128 images does not fit the memory: going on with 2 micro-batches, accumulated"]
