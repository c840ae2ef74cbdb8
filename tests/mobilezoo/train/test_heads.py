"""Fine-tuning at another size and class count, linear and efficient probing, and what does not fit is told."""

import json
from pathlib import Path

import pytest
import torch

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.config import load_record
from mobilezoo.errors import CheckpointError, ConfigError
from mobilezoo.models import create_model
from mobilezoo.models.probe import EfficientProbe
from mobilezoo.train import trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.load_model import load_model

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 2, kernel: 3, stride: 2, expansion: 2, width: 8}
"""


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of a network with 7 classes."""
    from safetensors.torch import save_file

    (tmp_path / "tiny.yaml").write_text(MODEL)
    torch.manual_seed(0)
    save_file(create_model(tmp_path / "tiny.yaml", num_classes=7).state_dict(), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def recipe(start: Path, *overrides: str) -> TrainConfig:
    path = start.with_name("recipe.yaml")
    path.write_text(
        f"model: {start.with_name('tiny.yaml')}\ncheckpoint: {start}\n"
        "data: {source: digits, batch_size: 64, workers: 0, augment: {hflip: 0.0}}\n"
        "train: {epochs: 1, device: cpu, resolution: 16, schedule: {warmup_epochs: 0}}\n"
    )
    return load_record(TrainConfig, path, overrides)


def test_other_classes_are_told_and_a_new_head_learns_at_another_size(start: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has 7 classes, the network 10: add reset_head=true"):
        trainer.train(recipe(start), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.warns(UserWarning, match="new random classifier"):
        record = trainer.train(
            recipe(start, "reset_head=true", "train.resolution=24"), tmp_path / "run", show_progress=False
        )
    assert (record.resolution, record.num_classes) == ((24, 24), 10)


@pytest.mark.parametrize("tune", [pytest.param("linear", marks=pytest.mark.slow), "probe"])
def test_probing_changes_the_head_alone_and_its_file_loads_again(start: Path, tmp_path: Path, tune: str) -> None:
    config = recipe(start, f"tune={tune}", "reset_head=true", "train.optimizer.lr=0.02", "train.epochs=2")
    with pytest.warns(UserWarning, match="new random classifier"):
        record = trainer.train(config, tmp_path / "run", show_progress=False)
    before = create_model(start.with_name("tiny.yaml"), checkpoint=start, num_classes=7).state_dict()
    loaded = load_model(str(tmp_path / "run" / "best.safetensors"))
    after = loaded.network.state_dict()
    body = {k: v for k, v in before.items() if not k.startswith("classifier")}
    prefix = "backbone." if tune == "probe" else ""
    assert body
    assert all(torch.equal(value, after[prefix + key]) for key, value in body.items())
    assert record == load_record_of(Checkpoint, tmp_path / "run" / "best.safetensors")
    assert record.probe_queries == (4 if tune == "probe" else 0)
    assert loaded.network(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    history = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_probe_pools_by_what_its_queries_look_at() -> None:
    probe = EfficientProbe(channels=4, queries=2, num_classes=4).eval()
    with torch.no_grad():
        probe.values.weight.copy_(torch.eye(4)[:, :, None, None])
        probe.queries.weight.zero_()
        probe.queries.weight[0, 0] = 1000.0  # the first query looks where channel 0 is largest, the second everywhere
        probe.fc.weight.copy_(torch.eye(4))
        probe.fc.bias.zero_()
        x = torch.zeros(1, 4, 2, 2)
        x[0, :, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        assert torch.allclose(probe(x), torch.tensor([[1.0, 2.0, 0.75, 1.0]]), atol=1e-4)


def test_what_cannot_be_probed_is_one_line(start: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint=PATH or pretrained=true with tune=linear"):
        recipe(start, "tune=linear", "checkpoint=null")
    with pytest.raises(ConfigError, match=r"probe_queries=5 does not divide the 32 channels"):
        trainer.assemble(recipe(start, "tune=probe", "probe_queries=5", "reset_head=true"))
