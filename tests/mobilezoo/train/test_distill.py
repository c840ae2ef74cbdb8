"""A teacher's logits, class and features pull a student towards it; a second head learns from the teacher alone."""

from pathlib import Path

import pytest
import timm
import torch

from mobilezoo.config import load_record
from mobilezoo.errors import MobilezooError
from mobilezoo.models import load_model_config
from mobilezoo.train import step, trainer
from mobilezoo.train.config import Distill, TrainConfig
from mobilezoo.train.distill import Teacher, similarity_loss

TEACHER = "test_convnext"
"""timm's smallest networks are called test_*."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(timm.create_model(TEACHER, num_classes=10).state_dict(), path)
    return path


def recipe(folder: Path, weights: Path, kind: str, model: str) -> TrainConfig:
    (folder / "recipe.yaml").write_text(
        f"model: {model}\n"
        "data: {source: digits, batch_size: 32, workers: 0, augment: {hflip: 0.0}}\n"
        "train: {epochs: 1, device: cpu, resolution: 32, smoothing: 0.0, schedule: {warmup_epochs: 0},\n"
        f"  distill: {{teacher: {TEACHER}, checkpoint: {weights}, kind: {kind}, weight: 1.0, resolution: 64}}}}\n"
    )
    return load_record(TrainConfig, folder / "recipe.yaml")


@pytest.mark.parametrize("kind", ["soft", "hard", "feature"])
def test_the_loss_is_smallest_where_the_student_agrees(weights: Path, kind: str) -> None:
    config = Distill(teacher=TEACHER, checkpoint=str(weights), kind=kind)  # type: ignore[arg-type]
    teacher = Teacher(config, 10, load_model_config("shvit_s1").preprocessing())
    x = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        features = teacher.network.forward_head(teacher.network.forward_features(x), pre_logits=True)
        own = features if kind == "feature" else teacher.network(x)
    if kind == "hard":
        own = 50 * torch.nn.functional.one_hot(own.argmax(-1), 10).float()
    other = torch.randn_like(own)
    assert float(teacher(x, own)) < 0.1 * float(teacher(x, other))
    assert float(teacher(x, own)) == pytest.approx(0.0, abs=0.02)


def test_features_of_any_width_can_be_compared() -> None:
    a = torch.randn(5, 7)
    rotation = torch.linalg.qr(torch.randn(12, 7)).Q
    assert float(similarity_loss(a, a @ rotation.T * 3)) == pytest.approx(0.0, abs=1e-6)
    assert float(similarity_loss(a, torch.randn(5, 12))) > 1e-3


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("soft", "hard")), "feature"]
)
def test_a_student_s_update_moves_it_towards_the_teacher(tmp_path: Path, weights: Path, kind: str) -> None:
    state = trainer.assemble(config := recipe(tmp_path, weights, kind, "mnasnet_small"))
    batch = next(state.train_batches.epoch(0))
    state.loss = lambda logits, _y: logits.sum() * 0.0  # the teacher alone
    state.network.train()
    losses = [step.train_step(state, config, [batch], i, lambda _: None) for i in range(6)]
    assert losses[-1] < losses[0]


def test_two_heads_learn_labels_and_teacher_apart(tmp_path: Path, weights: Path) -> None:
    state = trainer.assemble(config := recipe(tmp_path, weights, "hard", "cas_vit_xs_dist"))
    state.network.train()
    batch = next(state.train_batches.epoch(0))
    state.teacher.config = state.teacher.config.model_copy(update={"weight": 1e-12})  # type: ignore[union-attr,assignment]
    step._backward(state, config, [batch])
    head = state.network.head
    assert float(head.fc.weight.grad.abs().max()) > 1e-4  # type: ignore[union-attr]
    assert float(head.fc_dist.weight.grad.abs().max()) < 1e-9  # type: ignore[union-attr]
    state.network.eval()
    assert state.network(batch[0]).shape == (32, 10)


def test_a_teacher_of_other_classes_is_refused() -> None:
    prep = load_model_config("shvit_s1").preprocessing()
    with pytest.raises(MobilezooError, match="trained on 1000 classes, the data has 10"):
        Teacher(Distill(teacher="test_convnext"), 10, prep)
    with pytest.raises(MobilezooError, match="cannot be loaded"):
        Teacher(Distill(teacher="no_such_network"), 10, prep)
