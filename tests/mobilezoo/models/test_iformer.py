"""iFormer: equal to the official networks, with one head or two, and as large as published."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mobilezoo.errors import CheckpointError
from mobilezoo.models import create_model, iformer, load_model_config
from mobilezoo.models.fuse import fuse
from mobilezoo.models.table import read_table
from mobilezoo.testing.references import Reference

PUBLISHED = {
    "iformer_t": (2.9, 0.53),
    "iformer_s": (6.5, 1.09),
    "iformer_m": (8.9, 1.64),
    "iformer_l": (14.7, 2.83),  # the README says 2.63 G, its code counts 2.83 G
    "iformer_l2": (24.5, 4.50),
}
"""Millions of parameters and G multiply-adds of one head."""


@pytest.mark.parametrize("two_heads", [pytest.param(False, marks=pytest.mark.slow), True])
@torch.no_grad()
def test_a_two_head_file_gives_the_official_logits_to_networks_of_one_head_and_of_two(
    reference: Callable[[str], Reference], tmp_path: Path, two_heads: bool
) -> None:
    official = reference("iFormer_t_distheads")
    torch.save({"model": official.state}, tmp_path / "official.pth")
    config = load_model_config("iformer_t").model_copy(update={"distillation_head": two_heads})
    model = create_model(config, checkpoint=tmp_path / "official.pth").eval()
    assert official.difference(model(official.inputs)) <= 1e-4
    fused = fuse(model)
    assert fused.head.fc_dist is None  # type: ignore[union-attr]
    assert official.difference(fused(official.inputs)) <= 1e-4


def test_a_pair_of_logits_is_for_training_with_a_teacher_only() -> None:
    config = load_model_config("iformer_t").model_copy(update={"distillation_head": True})
    model = create_model(config, num_classes=5)
    x = torch.randn(2, 3, 32, 32)
    assert model.train()(x).shape == (2, 5)
    model.set_distilled_training(True)  # type: ignore[operator]
    assert [logits.shape for logits in model(x)] == [(2, 5), (2, 5)]
    model.eval()
    assert model(x).shape == (2, 5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(name: str) -> None:
    row = next(row for row in read_table() if row["name"] == name)
    config = load_model_config(name)
    assert isinstance(config, iformer.Config)
    second_head = config.widths[-1] * (1000 + 2) + 1000 if config.distillation_head else 0
    parameters, operations = PUBLISHED[name]
    assert (row["params"] - second_head) / 1e6 == pytest.approx(parameters, rel=0.01)
    assert row["macs"] / 1e9 == pytest.approx(operations, rel=0.01)


def test_another_variants_file_is_told_in_one_line(tmp_path: Path, reference: Callable[[str], Reference]) -> None:
    torch.save(reference("iFormer_t").state, tmp_path / "official.pth")
    with pytest.raises(CheckpointError) as told:
        create_model("iformer_s", checkpoint=tmp_path / "official.pth")
    assert "\n" not in str(told.value)
