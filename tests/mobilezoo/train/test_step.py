"""What a recipe names is what the update does: clipping, averages, decays, losses, accumulation, precision."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mobilezoo.config import find_config, load_record
from mobilezoo.data import Augment, DataConfig
from mobilezoo.data.loaders import DeviceStage
from mobilezoo.data.transforms import train_transform
from mobilezoo.models import create_model, load_model_config
from mobilezoo.train import build, step, trainer
from mobilezoo.train.config import Ema, Optimizer, TrainConfig, TrainSettings

MODEL = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {block: ir, depth: 2, kernel: 3, stride: 2, expansion: 2, width: 8}
"""


def recipe(folder: Path, *overrides: str) -> TrainConfig:
    (folder / "tiny.yaml").write_text(MODEL)
    (folder / "recipe.yaml").write_text(
        f"model: {folder / 'tiny.yaml'}\n"
        "data: {source: digits, batch_size: 64, workers: 0, augment: {hflip: 0.0}}\n"
        "train: {epochs: 1, device: cpu, resolution: 16, schedule: {warmup_epochs: 0}}\n"
    )
    return load_record(TrainConfig, folder / "recipe.yaml", overrides)


def gradients(state: step.TrainState, config: TrainConfig, batches: list[Any]) -> torch.Tensor:
    """The gradient of one update, as one vector."""
    state.network.train()
    step._backward(state, config, batches)
    return torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])


def plain(state: step.TrainState) -> None:
    """A network whose gradient is the sum of its images' (no batch norm)."""
    torch.manual_seed(0)
    state.network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    state.forward = state.network


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    state = trainer.assemble(config)
    plain(state)
    x, y = next(state.train_batches.epoch(0))
    whole = gradients(state, config, [(x, y)])
    state.network.zero_grad()
    halves = gradients(state, config, [(x[:32], y[:32]), (x[32:], y[32:])])
    state.network.zero_grad()
    state.micro_batches = 4
    quarters = gradients(state, config, [(x, y)])
    assert torch.allclose(whole, halves, rtol=1e-4, atol=1e-6)
    assert torch.allclose(whole, quarters, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_gradients_are_clipped_before_the_step(tmp_path: Path, mode: str) -> None:
    config = recipe(
        tmp_path, f"train.optimizer.clip_mode={mode}", "train.optimizer.clip=1e-3", "train.optimizer.name=sgd"
    )
    state = trainer.assemble(config)
    batch = next(state.train_batches.epoch(0))
    free = gradients(state, config, [batch]).norm()
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    found: list[torch.Tensor] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: found.extend(p.grad.clone() for p in state.network.parameters() if p.grad is not None)
    )
    step._apply(state, config, 0)
    clipped = torch.cat([g.flatten() for g in found])
    assert free > 0.1
    if mode == "norm":
        assert clipped.norm() == pytest.approx(1e-3, rel=1e-3)
    elif mode == "value":
        assert clipped.abs().max() <= 1e-3
    else:  # adaptive: at most a thousandth of each unit's weight norm (arXiv:2102.06171 §4.1; weights of at least 1e-3)
        for (name, weight), gradient in zip(before.items(), found, strict=True):
            if gradient.dim() == 4:
                limit = 1e-3 * weight.flatten(1).norm(dim=1).clamp_min(1e-3)
                assert bool((gradient.flatten(1).norm(dim=1) <= limit * 1.01).all()), name


def test_the_average_warms_up_and_follows_its_decay() -> None:
    network = nn.Linear(2, 1)
    for warmup in (False, True):
        settings = TrainSettings(ema=Ema(decay=0.999, warmup=warmup))
        ema = build.build_ema(network, settings)
        assert ema is not None
        start = ema.module.weight.clone()
        moved = copy.deepcopy(network)
        with torch.no_grad():
            moved.weight += 1
        ema.update(moved, step=5)
        share = float((ema.module.weight - start).detach().mean())
        assert share == pytest.approx(0.001, rel=0.01) if not warmup else share > 0.05


def test_layers_nearer_the_image_learn_slower_with_layer_decay() -> None:
    network = create_model("shvit_s1", num_classes=10)
    optimizer = build.build_optimizer(network, Optimizer(lr=1.0, layer_decay=0.5), 64)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert scale[id(named["head.l.weight"])] == 1.0
    assert scale[id(named["patch_embed.0.c.weight"])] < scale[id(named["stages.2.blocks.0.conv.m.c.weight"])] < 1.0


def test_noise_changes_the_rate_within_its_share_of_the_run() -> None:
    def rates(*overrides: str) -> list[float]:
        config = load_record(TrainConfig, find_config("train", "ghostnet"), ("train.epochs=10", *overrides))
        optimizer = build.build_optimizer(nn.Linear(2, 2), config.train.optimizer, 1024)
        schedule = build.build_schedule(optimizer, config.train, 20)
        values = []
        for update in range(200):
            schedule.step_update(update)
            values.append(optimizer.param_groups[0]["lr"])
        return values

    noisy, quiet = rates(), rates("train.schedule.noise=null")
    changed = [i for i, (a, b) in enumerate(zip(noisy, quiet, strict=True)) if a != b]
    assert 84 <= changed[0] < 100
    assert changed[-1] < 180
    assert len(changed) > 40


def test_losses_are_the_named_ones() -> None:
    logits, y = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0])
    p = logits.log_softmax(-1)[0]
    smooth = build.build_loss(TrainSettings(smoothing=0.3), mixed=False)(logits, y)
    assert float(smooth) == pytest.approx(float(-(0.7 * p[0] + 0.1 * p.sum())), rel=1e-5)
    bce = build.build_loss(TrainSettings(loss="bce", smoothing=0.0), mixed=False)(logits, y)
    one_hot = torch.tensor([[1.0, 0.0, 0.0]])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, one_hot)
    assert float(bce) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_blends_pixels_and_targets_alike(mixup: float, cutmix: float) -> None:
    torch.manual_seed(0)
    config = DataConfig(source="digits", augment=Augment(mixup=mixup, cutmix=cutmix))
    mixup_fn = build.build_mixup(config, TrainSettings(smoothing=0.0), 2)
    assert mixup_fn is not None
    x = torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)])
    mixed, target = mixup_fn(x, torch.tensor([0, 1]))
    assert target.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert float(mixed[0].mean()) == pytest.approx(float(target[0, 1]), abs=0.02)
    assert set(mixed.unique().tolist()) <= {0.0, 1.0} if cutmix else len(mixed[0].unique()) == 1


def test_policy_and_erasing_change_images_as_often_as_asked() -> None:
    from mobilezoo.data import open_data

    prep = load_model_config("shvit_s1").preprocessing()
    plain_config = DataConfig(source="digits", augment=Augment(color_jitter=0.0, scale=(1, 1), ratio=(1, 1), hflip=0))
    random_config = plain_config.model_copy(
        update={"augment": plain_config.augment.model_copy(update={"auto_augment": "rand-m9-mstd0.5-inc1"})}
    )
    image = open_data(plain_config, train=True).dataset[0][0]
    seen = {}
    for name, config in (("plain", plain_config), ("random", random_config)):
        torch.manual_seed(0)
        vary = train_transform(config.augment, 32, prep)
        seen[name] = {torch.as_tensor(vary(image)).numpy().tobytes() for _ in range(12)}
    assert len(seen["plain"]) <= 2  # bilinear or bicubic
    assert len(seen["random"]) > 8
    erased = Augment(random_erasing=0.5, erasing_mode="const")
    stage = DeviceStage(DataConfig(source="digits", augment=erased), prep, torch.device("cpu"))
    torch.manual_seed(0)
    x, _ = stage(torch.full((200, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(200))
    share = float((x == 0).flatten(1).any(dim=1).float().mean())
    assert 0.35 < share < 0.65


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.amp=bf16",),
        ("train.channels_last=true",),
        ("train.checkpoint_activations=true",),
        ("train.optimizer.fused=true",),
    ],
)
def test_faster_or_smaller_steps_learn_the_same(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    losses = {}
    for name, changes in (("plain", ()), ("changed", overrides)):
        config = recipe(tmp_path, *changes)
        state = trainer.assemble(config)
        batches = state.train_batches.epoch(0)
        state.network.train()
        losses[name] = [step.train_step(state, config, [next(batches)], i, lambda _: None) for i in range(4)]
    assert losses["changed"] == pytest.approx(losses["plain"], rel=0.02 if "bf16" in overrides[0] else 1e-4)
    assert losses["plain"][-1] < losses["plain"][0]


def test_recomputed_activations_are_not_kept(tmp_path: Path) -> None:
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        state = trainer.assemble(recipe(tmp_path, f"train.checkpoint_activations={str(recompute).lower()}"))
        state.network.train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            state.forward(torch.randn(8, 3, 32, 32))
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


def test_a_compiler_that_fails_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_network: nn.Module, **_settings: Any) -> Any:
        def call(_x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    state = trainer.assemble(recipe(tmp_path, "train.compile=true"))
    assert state.forward is state.network
    assert capsys.readouterr().err == "torch.compile failed (no C++ compiler found): going on without it\n"


def test_cuda_graphs_without_a_gpu_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = trainer.assemble(recipe(tmp_path, "train.cuda_graphs=true"))
    assert state.forward is state.network
    assert "CUDA graphs need an NVIDIA GPU, this is cpu" in capsys.readouterr().err


def test_the_quicker_relu6_changes_no_bit() -> None:
    from mobilezoo.train.compile import _quicken_relu6

    found = []
    for quick in (False, True):
        torch.manual_seed(0)
        network = create_model("mobilenetv2_ca_100", num_classes=10).train()
        if quick:
            _quicken_relu6(network)
            assert any(type(m) is nn.ReLU6 and "forward" in vars(m) for m in network.modules())
        torch.manual_seed(1)
        logits = network(torch.randn(4, 3, 48, 48))
        logits.square().mean().backward()
        found.append([logits, *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True) if a is not None)


class Routed(nn.Sequential):
    """A part with a loss of its own."""

    def auxiliary_loss(self) -> torch.Tensor | None:
        return 0.5 * self[0].weight.square().sum() if self.training else None


def test_a_part_s_own_loss_is_added(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    state = trainer.assemble(config)
    plain(state)
    batch = next(state.train_batches.epoch(0))
    without = gradients(state, config, [batch])
    weight = state.network[0].weight.detach().flatten()  # type: ignore[index,union-attr,operator]
    state.network = state.forward = Routed(*state.network)  # type: ignore[arg-type]
    state.network.zero_grad()
    added = gradients(state, config, [batch]) - without
    torch.testing.assert_close(added[: weight.numel()], weight, atol=1e-5, rtol=1e-4)
    assert float(added[weight.numel() :].abs().max()) < 1e-5
    score = torch.tensor(1.0)
    assert step.with_auxiliary(state.network.eval(), score) is score
