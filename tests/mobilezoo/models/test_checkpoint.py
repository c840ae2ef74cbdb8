"""Checkpoints: every published packing loads, everything else is one clear line."""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.errors import CheckpointError
from mobilezoo.models import create_model
from mobilezoo.models.checkpoint import convert, read_state_dict

NAME = "mnasnet_small"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model(NAME).eval()


def _equal(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [(None, ""), ("model", ""), ("state_dict", "module."), ("state_dict_ema", ""), ("ema", "_orig_mod.")],
)
def test_every_published_packing_loads(tmp_path: Path, network: nn.Module, wrapper: str | None, prefix: str) -> None:
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), network.state_dict())


def test_safetensors_load(tmp_path: Path, network: nn.Module) -> None:
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.safetensors"), network.state_dict())


def test_averaged_weights_win_unless_asked_otherwise(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, tmp_path / "x.pth")
    assert read_state_dict(tmp_path / "x.pth")["a"] == 1
    assert read_state_dict(tmp_path / "x.pth", ema=False)["a"] == 0


@pytest.mark.parametrize("name", ["mnasnet_small", "shvit_s1", "ghostnet_050", "cas_vit_xs", "mobilenext_035"])
def test_a_feature_pyramid_takes_the_classifiers_weights(tmp_path: Path, name: str) -> None:
    whole = create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "x.pth")
    pyramid = create_model(name, checkpoint=tmp_path / "x.pth", features_only=True, out_indices=(-1,)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(pyramid(x)[0], whole.forward_intermediates(x)[1][-1])


def test_another_class_count_needs_a_word_and_keeps_the_rest(tmp_path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"has 1000 classes, the network 10: .*reset_head"):
        create_model(NAME, checkpoint=tmp_path / "x.pth", num_classes=10)
    with pytest.warns(UserWarning, match="new random classifier"):
        model = create_model(NAME, checkpoint=tmp_path / "x.pth", num_classes=10, reset_head=True)
    assert torch.equal(model.conv_head.weight, network.conv_head.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model(NAME, checkpoint=tmp_path / "x.pth", reset_head=True)  # nothing to reset: nothing to say


def test_a_file_of_another_network_is_named_with_the_keys_that_differ(tmp_path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"does not fit shvit_s1: missing: patch_embed.* and \d+ more"):
        create_model("shvit_s1", checkpoint=tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"does not fit mnasnet_a1_035: .*of another shape: .* instead of "):
        create_model("mnasnet_a1_035", checkpoint=tmp_path / "x.pth")


def test_equal_classes_but_other_widths_are_not_called_a_class_count(tmp_path: Path) -> None:
    torch.save(create_model("mobilenext_075").state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        create_model("mobilenext_100", checkpoint=tmp_path / "x.pth", reset_head=True)


class _Runs:
    """Unpickled, it would create a file."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.call[0], self.call[1:])


@pytest.mark.parametrize("by", ["open", "system"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, by: str) -> None:
    made = str(tmp_path / "made")
    evil = _Runs(open, made, "w") if by == "open" else _Runs(os.system, f"touch {made}")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": evil}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"holds more than weights \(\w+\.{by}\) .*could run code"):
        read_state_dict(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


def test_options_and_scores_beside_the_weights_are_taken_as_authors_save_them(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=1e-3, model="x", sizes=[224])
    scores = {"top1": np.float64(71.5), "top5": np.float32(90), "epoch": np.int64(3), "best": np.bool_(True)}
    torch.save(
        {"net_E": {"a": torch.ones(1)}, "net": {"a": torch.zeros(1)}, "args": args, **scores}, tmp_path / "x.pth"
    )
    assert read_state_dict(tmp_path / "x.pth") == {"a": torch.ones(1)}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_damaged(tmp_path: Path, network: nn.Module, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    torch.save(network.state_dict(), path) if suffix == "pth" else save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        create_model(NAME, checkpoint=path)


def test_a_missing_file_and_a_file_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not found: .*nowhere\.pth"):
        read_state_dict(tmp_path / "nowhere.pth")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"holds no state dict \(found: epoch\)"):
        read_state_dict(tmp_path / "x.pth")


def test_conversion_keeps_the_files_class_count_and_leaves_a_record(tmp_path: Path) -> None:
    network = create_model(NAME, num_classes=7)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "official.pth")
    out = convert(tmp_path / "official.pth", tmp_path / "ours.safetensors", NAME)
    record = load_record_of(Checkpoint, out)
    assert (record.model, record.num_classes) == (NAME, 7)
    assert _equal(create_model(NAME, checkpoint=out, num_classes=7), network.state_dict())
