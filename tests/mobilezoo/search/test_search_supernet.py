"""Shared weights: what a network takes, that it computes the same outside, how all are trained and scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.data import eval_loader, open_data
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import CheckpointError, ConfigError, MobilezooError
from mobilezoo.layers.attention import MIXING
from mobilezoo.models import create_model, load_model_config
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.records import Figures, LatencyEstimate
from mobilezoo.search.space import Space
from mobilezoo.search.study import search
from mobilezoo.search.supernet.accuracy import SupernetAccuracy
from mobilezoo.search.supernet.calibrate import recalibrate
from mobilezoo.search.supernet.create import create_accuracy
from mobilezoo.search.supernet.model import Supernet, supernet_config
from mobilezoo.search.supernet.predictor import PredictedAccuracy, prediction_report
from mobilezoo.search.supernet.sandwich import bound, sandwich
from mobilezoo.search.supernet.weights import crop, roles_of
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.trainer import train
from mobilezoo.train.weight_sharing import check_weight_sharing
from mobilezoo.workflows.report import write_report

TINY: dict[str, Any] = {
    "resolution": [16],
    "stem": 8,
    "head": 16,
    "network": {"activation": "relu"},
    "stages": [
        {"stride": 2, "block": ["ds"], "kernel": [3, 5], "attention": ["none", "se"], "width": [8, 16], "depth": [1]},
        {"stride": 2, "block": ["ir"], "kernel": [3, 5], "expansion": [2, 3], "width": [8, 16], "depth": [1, 2]},
    ],
}
SOME = ("shvit", "cas_vit", "emov2", "mobilemamba", "agent", "care", "moh")
EVERYTHING: dict[str, Any] = {
    "resolution": [32, 48],
    "stem": 8,
    "head": 32,
    "network": {"activation": "hard_swish", "padding": "tensorflow"},
    "stages": [
        {"stride": 1, "block": ["ds"], "attention": ["none", "se", "coord", "eca"], "width": [8, 16], "depth": [1, 2]},
        {"stride": 2, "block": ["cn", "ds", "ir", "er"], "kernel": [3, 5, 7], "expansion": [1.5, 3], "depth": [1, 3],
         "attention": ["none", "se", "cbam", "gc"], "skip": [True, False], "width": [8, 12, 16]},
        {"stride": 2, "block": ["ir", *SOME], "expansion": [2, 3], "width": [16, 24], "depth": [1, 2]},
        {"stride": 1, "block": list(SOME), "width": [24, 32], "depth": [1]},
    ],
}  # fmt: skip
QUICK = ("train.epochs=2", "train.resolution=16", "train.schedule.warmup_epochs=0", "train.device=cpu",
         "data.batch_size=200")  # fmt: skip


def tiny(**changes: Any) -> Space:
    return Space.parse({**TINY, **changes}, "tiny.yaml")


def supernet_of(space: Space, **settings: Any) -> Supernet:
    torch.manual_seed(0)
    network = create_model(supernet_config(space, "supernet", **settings), num_classes=10)
    assert isinstance(network, Supernet)
    return network.train()


MIXED: dict[str, Any] = {
    "resolution": [16],
    "stem": 16,
    "head": 16,
    "stages": [
        {"stride": 2, "block": ["ir"], "expansion": [2, 4], "attention": list(MIXING), "width": [16, 24],
         "depth": [1, 2]},
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("data", "count"), [(TINY, 32), (EVERYTHING, 40), (MIXED, 40)])
def test_a_network_taken_out_computes_what_the_supernet_computes(data: dict[str, Any], count: int) -> None:
    space = Space.parse(data, "space")
    shared, rng = supernet_of(space), np.random.default_rng(0)
    for _ in range(count):
        point = space.sample(rng)
        x = torch.randn(3, 3, point.resolution, point.resolution)
        assert torch.equal(shared.extract(point).train()(x), shared.logits(point, x))


def test_a_network_takes_the_first_channels_and_the_centre_of_the_kernel() -> None:
    space = tiny()
    shared = supernet_of(space)
    small = space.point(bound(space, min))
    x = torch.randn(4, 3, 16, 16)
    tensors = {key: value.detach() for key, value in shared.bank.tensors.items()}

    def norm(x: torch.Tensor, key: str) -> torch.Tensor:
        weight, bias = (tensors[f"{key}/{part}"][: x.shape[1]] for part in ("weight", "bias"))
        return F.batch_norm(x, None, None, weight, bias, training=True)

    x_out = F.relu(norm(F.conv2d(x, tensors["conv_stem/weight"], stride=2, padding=1), "bn1"))
    at = "blocks/0/0/ds/"
    x_out = F.conv2d(x_out, tensors[at + "conv_dw/weight"][:8, :, 1:4, 1:4], stride=2, padding=1, groups=8)
    x_out = F.relu(norm(x_out, at + "bn1"))
    x_out = norm(F.conv2d(x_out, tensors[at + "conv_pw/weight"][:8]), at + "bn2")
    at = "blocks/1/0/ir/"
    x_out = F.relu(norm(F.conv2d(x_out, tensors[at + "conv_pw/weight"][:16, :8]), at + "bn1"))
    x_out = F.conv2d(x_out, tensors[at + "conv_dw/weight"][:16, :, 1:4, 1:4], stride=2, padding=1, groups=16)
    x_out = F.relu(norm(x_out, at + "bn2"))
    x_out = norm(F.conv2d(x_out, tensors[at + "conv_pwl/weight"][:8, :16]), at + "bn3")
    x_out = F.relu(norm(F.conv2d(x_out, tensors["conv_head/weight"][:, :8]), "bn2"))
    expected = F.linear(x_out.mean((2, 3)), tensors["classifier/weight"], tensors["classifier/bias"])
    assert torch.allclose(shared.logits(small, x), expected, atol=1e-5)


def test_joint_layers_of_attention_are_cropped_role_by_role() -> None:
    whole = torch.arange(12.0)[:, None].expand(12, 3)
    rows = crop(whole, torch.Size([6, 2]), roles_of("blocks.0.0.se.mix.qkv.conv.weight"))
    assert rows[:, 0].tolist() == [0, 1, 4, 5, 8, 9]  # two channels each of queries, keys and values
    assert roles_of("blocks.0.0.se.mix.1.layer1.bias_imag") == 8
    assert roles_of("blocks.0.0.conv_pw.weight") == 1


def test_the_sandwich_holds_both_ends_and_draws_what_has_no_order() -> None:
    space, rng = tiny(), np.random.default_rng(0)
    drawn = [sandwich(space, 2, rng) for _ in range(40)]
    for largest, *_, smallest in drawn:
        assert [(s.kernel, s.width, s.depth) for s in largest.stages] == [(5, 16, 1), (5, 16, 2)]
        assert [(s.kernel, s.width, s.depth) for s in smallest.stages] == [(3, 8, 1), (3, 8, 1)]
    assert {points[0].stages[0].attention for points in drawn} == {"none", "se"}
    assert all(len(points) == 4 for points in drawn)


def test_a_batch_trains_the_parts_of_its_networks_and_nothing_else() -> None:
    shared = supernet_of(tiny(), random=0)
    x, y = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    losses = shared.losses(x, lambda logits: F.cross_entropy(logits, y))
    next(losses)  # the largest learns from the labels; then the smallest from the largest
    for loss in losses:
        loss.backward()
    gradient = shared.bank.tensors["blocks/1/0/ir/conv_dw/weight"].grad
    assert gradient is not None
    trained = int(gradient[:16, :, 1:4, 1:4].count_nonzero())
    assert 0 < trained == int(gradient.count_nonzero())
    assert shared.bank.tensors["blocks/1/1/ir/conv_dw/weight"].grad is None


def test_calibration_sets_the_mean_statistics_of_the_batches() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.9))
    batches = [torch.randn(8, 3, 5, 5) for _ in range(3)]
    assert recalibrate(network, batches) is network
    maps = [network[0](x) for x in batches]
    assert torch.allclose(network[1].running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), atol=1e-6)
    assert torch.allclose(network[1].running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0), atol=1e-6)
    assert network[1].momentum == 0.1
    assert not any(module.training for module in network.modules())


def recipe_of(space: Space, folder: Path, *overrides: str) -> TrainConfig:
    config = supernet_config(space, "supernet", random=1, calibration_batches=2)
    path = write_yaml(folder / "supernet.yaml", config.model_dump(mode="json", exclude={"name"}))
    return load_record(TrainConfig, find_config("train", "digits"), (f"model={path}", *QUICK, *overrides))


@pytest.mark.slow
def test_the_trainer_resumes_a_supernet_bit_for_bit(tmp_path: Path) -> None:
    recipe = recipe_of(tiny(), tmp_path, "train.ema.decay=0.9")
    unbroken = train(recipe, tmp_path / "a", show_progress=False)

    def stop(epoch: int, top1: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "b", show_progress=False, on_epoch=stop)
    assert train(recipe, tmp_path / "b", resume=True, show_progress=False).sha256 == unbroken.sha256


def test_what_a_supernet_cannot_do_is_one_line(tmp_path: Path) -> None:
    recipe = recipe_of(tiny(), tmp_path, "train.compile=true")
    with pytest.raises(ConfigError, match=r"trains without train\.compile=true"):
        train(recipe, tmp_path / "run", show_progress=False)
    linear = recipe.model_copy(update={"tune": "linear"})
    with pytest.raises(ConfigError, match="trains without tune=linear"):
        check_weight_sharing(supernet_of(tiny()), linear, Distributed())
    with pytest.raises(MobilezooError, match="answers only as one of its networks"):
        supernet_of(tiny()).eval()(torch.zeros(1, 3, 16, 16))
    with pytest.raises(MobilezooError, match="no feature extractor"):
        create_model(supernet_config(tiny(), "supernet"), features_only=True)


def searched(folder: Path, **changes: Any) -> tuple[SearchConfig, SupernetAccuracy, Any]:
    data = {"name": "toy", "space": TINY, "objective": {"target_ms": 1.0}, "engine": "random", "trials": 4,
            "recipe": "digits", "recipe_overrides": QUICK, "accuracy": "supernet", **changes}  # fmt: skip
    config = SearchConfig.parse(data, "toy.yaml")
    said: list[str] = []
    judge = create_accuracy(config, folder, said.append)
    assert judge is not None
    figures = Figures(latency={"host": LatencyEstimate(ms=1.0, source="none")})
    result = search(config, judge, lambda candidate: figures, folder)
    judge.write(result, folder)
    assert any("supernet: trained in" in line for line in said)
    return config, judge, result


@pytest.mark.slow
def test_a_search_leaves_the_winner_with_the_weights_it_was_scored_with(tmp_path: Path) -> None:
    config, judge, result = searched(tmp_path, supernet={"calibration_batches": 2, "random": 1})
    assert result.best_yaml is not None
    path = tmp_path / result.best_yaml
    weights = path.with_suffix(".safetensors")
    network = create_model(load_model_config(path), weights, num_classes=10).eval()
    data = judge.recipe.data
    held_out = eval_loader(data, open_data(data, train=False), 16, judge.model.preprocessing(), torch.device("cpu"))
    assert evaluate(network, held_out).top1 == pytest.approx(result.trial(result.best).top1)
    assert {p.with_suffix(".safetensors").is_file() for p in (tmp_path / "front").glob("*.yaml")} == {True}
    page = write_report([tmp_path], tmp_path / "page.html").read_text()
    assert 'id="training"' in page, "the supernet's own curves"
    assert 'id="models"' not in page, "a supernet is no model to choose"
    # The same supernet by name: nothing is trained again, and the same network scores the same.
    again = config.model_copy(
        update={
            "supernet": config.supernet.model_copy(
                update={"checkpoint": str(tmp_path / "supernet/train/best.safetensors")}
            )
        }
    )
    other = SupernetAccuracy(again, tmp_path / "other")
    point = result.trial(result.best).point
    assert other.top1(point) == pytest.approx(judge.top1(point))
    wider = again.model_copy(update={"space": Space.parse({**TINY, "stem": 16}, "wider")})
    with pytest.raises(CheckpointError, match="does not fit"):
        create_accuracy(wider, tmp_path / "wider", print)
    missing = again.model_copy(
        update={"supernet": again.supernet.model_copy(update={"checkpoint": "none.safetensors"})}
    )
    with pytest.raises(MobilezooError, match=r"file not found.*none\.safetensors"):
        create_accuracy(missing, tmp_path / "missing", print)


@pytest.mark.slow
def test_a_predictor_learns_from_scored_networks_and_states_its_error(tmp_path: Path) -> None:
    space = {**TINY, "stages": [TINY["stages"][0], {**TINY["stages"][1], "attention": ["none", "se"]}]}
    settings = {"calibration_batches": 1, "predictor_samples": 25, "eval_images": 100}
    _, judge, result = searched(tmp_path, space=space, accuracy="predictor", supernet=settings)
    assert isinstance(judge, PredictedAccuracy)
    lines = (tmp_path / "supernet/samples.jsonl").read_text().split()
    assert (tmp_path / "supernet/predictor.json").is_file()
    assert all(0 <= trial.top1 <= 100 for trial in result.trials)
    best = load_record_of(Checkpoint, tmp_path / str(result.best_yaml).replace(".yaml", ".safetensors"))
    point = result.trial(result.best).point
    assert best.top1 == pytest.approx(evaluate(judge.inherit(point), judge.images.whole(16)).top1)  # not of 100 images
    before = len(lines)
    judge.__dict__.pop("_learned")
    judge.__dict__.pop("supernet")  # scored networks are read, none is scored again
    judge._learned  # noqa: B018
    assert "supernet" not in judge.__dict__
    assert len((tmp_path / "supernet/samples.jsonl").read_text().split()) == before


def test_the_predictors_error_is_of_networks_it_has_not_seen() -> None:
    report = prediction_report(np.array([1.0, 2.0, 3.0, 5.0]), np.array([10.0, 30.0, 20.0, 40.0]), 20)
    assert (report.spearman, report.mean_abs_error) == (pytest.approx(0.8), pytest.approx(22.25))
    assert prediction_report(np.ones(3), np.arange(3.0), 15).spearman == 0.0


def test_a_size_fixed_by_the_recipe_contradicts_searched_sizes(tmp_path: Path) -> None:
    with pytest.raises(MobilezooError, match=r"train\.resolution = 16: the space searches \[16, 24\]"):
        searched(tmp_path, space={**TINY, "resolution": [16, 24]})
    with pytest.raises(MobilezooError, match="predictor_samples = 150: the space has 128 networks"):
        searched(tmp_path, accuracy="predictor")
