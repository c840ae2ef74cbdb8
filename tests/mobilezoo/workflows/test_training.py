"""`mobilezoo train` with a run folder in the recipe's place, and what it says of runs that cannot go on."""

import shutil
from pathlib import Path

import pytest

from mobilezoo.cli.main import main

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 1, kernel: 3, stride: 2, expansion: 2, width: 8}
"""
RECIPE = """model: {model}
data: {{source: digits, batch_size: 360, workers: 0, augment: {{hflip: 0.0}}}}
train: {{epochs: 2, device: cpu, resolution: 16, schedule: {{warmup_epochs: 0}}}}
"""


def told(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Exit code and what was said."""
    with pytest.raises(SystemExit) as done:
        main(["train", *args])
    assert isinstance(done.value.code, int)
    return done.value.code, capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(MODEL)
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "tiny.yaml"))
    with pytest.raises(SystemExit) as done:
        main(["train", str(folder / "recipe.yaml"), "-q", "--out", str(folder / "run")])
    assert done.value.code == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of two epochs, stopped after its first; its network's YAML is gone."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(trained.parent / "tiny.yaml"), str(tmp_path / "tiny.yaml")))
    shutil.rmtree(run / "checkpoints" / "epoch-0002")
    return run


@pytest.mark.slow
def test_a_run_folder_is_enough_to_go_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, str(run), "--resume", "data.workers=1", "train.keep=1")
    assert (code, f"resuming {run} after epoch 1" in said) == (0, True), said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-0002"]
    code, said = told(capsys, str(run), "--resume", "train.keep=1")
    assert (code, f"{run} is trained: 2 of 2 epochs" in said) == (0, True), said


def test_start_weights_that_are_gone_do_not_hinder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("\ncheckpoint:\n", "\ncheckpoint: gone.safetensors\n"))
    assert "gone.safetensors" in (run / "config.yaml").read_text()
    code, said = told(capsys, str(run), "--resume", "-q")
    assert code == 0, said


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "already holds a run: add --resume to go on with it, or begin another by the same recipe"),
        (("--resume", "--out", "elsewhere"), "leave --out out"),
        (("--resume", "train.epochs=9"), "differs from the config to resume at 'train.epochs': 2 then, 9 now"),
        (("--resume", "train.epoch=9"), "did you mean train.epochs"),
    ],
)
def test_a_run_is_not_begun_again_or_changed(
    run: Path, args: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, str(run), *args)
    assert (code, said.count("\n")) == (2, 1)
    assert expected in said


def test_a_folder_without_a_run_is_told_with_near_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, f"{run}s", "--resume")
    assert (code, said.count("\n")) == (2, 1)
    assert f"holds no run (there is no config.yaml in it): did you mean {run}?" in said
    code, said = told(capsys, str(run.parent), "--resume")
    assert (code, said.count("\n")) == (2, 1)
    assert "name a run folder, a recipe or its YAML" in said


def test_a_recipe_without_a_run_begins_and_says_so(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = str(trained.parent / "recipe.yaml"), str(tmp_path / "new")
    code, said = told(capsys, recipe, "--resume", "train.epochs=1", "--out", out)
    assert (code, f"nothing to resume in {out}: starting from the beginning" in said) == (0, True), said


def test_damaged_checkpoints_are_not_trained_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "epoch-0001" / "sums.json").write_text("{}")
    code, said = told(capsys, str(run), "--resume")
    assert (code, said.count("\n")) == (2, 1)
    assert "no whole checkpoint is left" in said
    assert "model.safetensors has another checksum); restore one, or delete that folder" in said


def test_best_weights_that_are_damaged_are_said_and_begun_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "best.safetensors").write_bytes(b"torn")
    code, said = told(capsys, str(run), "--resume")
    assert code == 0, said
    assert "changed since its record was written" in said
    assert "the best of the epochs from here on is kept" in " ".join(said.split())
