"""Every recipe in configs/train builds its optimizer, schedule, losses and augmentation, with the official numbers."""

import pytest
import torch
from torch import nn

from mobilezoo.config import config_names, config_root, find_config, load_record
from mobilezoo.data import open_data
from mobilezoo.data.config import DataConfig
from mobilezoo.data.loaders import train_loader
from mobilezoo.models import load_model_config
from mobilezoo.train import build
from mobilezoo.train.config import TrainConfig

OFFICIAL = {
    "mobilenetv2_ca": (200, 256, 0.05),
    "mobilenext": (200, 256, 0.1),
    "ghostnet": (450, 1024, 0.064),
    "shvit": (300, 2048, 4e-3),
    "cas_vit": (300, 2048, 6e-3),
    "emov2": (300, 1024, 3e-3),
    "mobilemamba": (300, 1024, 3e-3),
    "mnasnet": (350, 1024, 0.064),
    "agent": (300, 4096, 4e-3),
    "inline": (300, 4096, 4e-3),
    "nat": (300, 1024, 1e-3),
    "illama": (300, 4096, 4e-3),
    "favit": (300, 1024, 1e-3),
    "moh": (300, 1024, 1e-3),
    "efficientmod": (300, 2048, 4e-3),
    "smt": (300, 1024, 2e-3),
    "focalnet": (300, 1024, 1e-3),
    "ravlt": (300, 1024, 1e-3),
    "davit": (300, 1024, 5e-4),
    "iformer": (300, 4096, 4e-3),
    "dsm": (300, 1024, 1e-3),
    "lightnet": (300, 1024, 1e-3),
    "loope": (300, 1024, 1e-3),
}
"""Recipe → epochs, images per optimizer step, peak learning rate."""

UPDATES = 10


@pytest.fixture(params=sorted(config_names("train")))
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    config = load_record(TrainConfig, find_config("train", request.param))
    return config.model_copy(update={"pretrained": False})  # no network here


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def rates(config: TrainConfig) -> list[float]:
    """The learning rate at every tenth of every epoch."""
    batch = config.data.batch_size * config.train.accumulate
    optimizer = build.build_optimizer(small_network(), config.train.optimizer, batch)
    schedule = build.build_schedule(optimizer, config.train, UPDATES)
    values = []
    for update in range(config.train.epochs * UPDATES):
        schedule.step_update(update)
        values.append(max(group["lr"] for group in optimizer.param_groups))
    return values


def test_every_family_has_a_recipe() -> None:
    assert set(OFFICIAL) <= set(config_names("train"))


@pytest.mark.parametrize("name", OFFICIAL)
def test_length_batch_and_peak_learning_rate_are_the_official_ones(name: str) -> None:
    config = load_record(TrainConfig, find_config("train", name))
    epochs, batch, peak = OFFICIAL[name]
    assert config.train.epochs == epochs
    assert config.data.batch_size * config.train.accumulate == batch
    if config.train.schedule.noise is not None:
        config = load_record(TrainConfig, find_config("train", name), ("train.schedule.noise=null",))
    values = rates(config)
    assert max(values) == pytest.approx(peak, rel=0.03)
    warmup = config.train.schedule.warmup_epochs
    assert values[0] == pytest.approx(config.train.schedule.warmup_lr if warmup else peak, abs=1e-9)
    assert values[-1] < 0.021 * peak
    assert values.index(max(values)) <= (warmup + 3) * UPDATES


@pytest.mark.parametrize("name", [*OFFICIAL, "finetune"])
def test_the_header_says_source_score_cost_and_command(name: str) -> None:
    text = (config_root() / "train" / f"{name}.yaml").read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines() if line.startswith("#"))
    assert all(word in header for word in ("Source:", "Expected:", "Cost:", f"Run: mobilezoo train {name}"))


def test_the_network_takes_the_recipe_s_arguments(recipe: TrainConfig) -> None:
    network = build.build_network(recipe, num_classes=10)
    batch = recipe.data.batch_size * recipe.train.accumulate
    optimizer = build.build_optimizer(network, recipe.train.optimizer, batch)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in network.parameters() if p.requires_grad}
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert recipe.train.optimizer.weight_decay in decays
    assert recipe.train.optimizer.decay_norms or 0.0 in decays
    ema = build.build_ema(network, recipe.train)
    assert (ema is None) == (recipe.train.ema is None)


def test_augmented_batches_go_through_mixing_and_loss(recipe: TrainConfig) -> None:
    small = recipe.data.model_copy(update={"batch_size": 8, "workers": 0})
    prep = load_model_config(recipe.model).preprocessing()
    data = open_data(DataConfig(source="digits"), train=True)
    torch.manual_seed(0)
    loader = train_loader(small, data, 64, prep, torch.device("cpu"))
    x, y = next(loader.epoch(0))
    assert x.shape[:2] == (8, 3)
    assert tuple(x.shape[2:]) in ((64, 64), *recipe.data.augment.sizes)
    assert bool(torch.isfinite(x).all())
    mixup_fn = build.build_mixup(recipe.data, recipe.train, 10)
    assert (mixup_fn is not None) == (recipe.data.augment.mixup > 0 or recipe.data.augment.cutmix > 0)
    if mixup_fn is not None:
        x, y = mixup_fn(x, y)
    logits = torch.randn(8, 10, requires_grad=True)
    loss = build.build_loss(recipe.train, mixup_fn is not None)(logits, y)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert logits.grad is not None
