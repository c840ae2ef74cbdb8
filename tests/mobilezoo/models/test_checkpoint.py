"""Checkpoints: every published packing loads, everything else is one clear line."""

import argparse
import os
import random
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
from mobilezoo.models.weights import tensors_of
from mobilezoo.workflows.convert import convert_checkpoint
from mobilezoo.workflows.model_options import ModelOptions

NAME = "mnasnet_small"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model(NAME).eval()


def _equal(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


PREFIXES = (
    "",
    "module.",
    "_orig_mod.module.",
    "module._orig_mod.",
    "module.module.",
    "model.",
    "net.",
    "backbone.net.",
)
KEYS = ("state_dict", "model_state_dict", "model", "weights", "net", "module", "ema", "checkpoint.model", "0.weights")


def packed(state: dict[str, Tensor], key: str, prefix: str) -> dict[Any, Any]:
    """The state under a dotted key, beside what training saves."""
    inner: Any = {prefix + k: v for k, v in state.items()}
    for name in reversed(key.split(".") if key else []):
        inner = {name: inner, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}
    return inner  # type: ignore[no-any-return]


@pytest.mark.parametrize(("key", "prefix"), [("", p) for p in PREFIXES] + [(k, "module.") for k in KEYS])
def test_every_packing_loads(tmp_path: Path, network: nn.Module, key: str, prefix: str) -> None:
    torch.save(packed(network.state_dict(), key, prefix), tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), network.state_dict())


FAMILIES = ("ghostnet_050", "ghostnetv3_050", "shvit_s1", "cas_vit_xs", "emo2_1m", "mobilemamba_t2", "mobilenext_035")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "ghostnet_050" else [pytest.mark.slow]) for name in FAMILIES]
)
def test_counters_and_wrappers_inside_names_are_no_weights_in_any_family(tmp_path: Path, name: str) -> None:
    network = create_model(name)
    state: dict[str, Tensor] = {"n_averaged": torch.tensor(7)}
    for key, value in network.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"module.{first}._orig_mod.{rest}"] = value
    for part, _ in network.named_modules():
        for counter in ("total_ops", "total_params"):
            state[f"module.{part}.{counter}" if part else f"module.{counter}"] = torch.zeros(1, dtype=torch.float64)
    torch.save(state, tmp_path / "x.pth")
    assert _equal(create_model(name, checkpoint=tmp_path / "x.pth"), network.state_dict())


def test_torchs_own_average_and_a_module_that_trains_two_networks_load(tmp_path: Path, network: nn.Module) -> None:
    torch.save(torch.optim.swa_utils.AveragedModel(network).state_dict(), tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), network.state_dict())
    other = create_model("ghostnet_050").state_dict()
    state = {f"model.{k}": v for k, v in network.state_dict().items()} | {f"teacher.{k}": v for k, v in other.items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(1000)}}, tmp_path / "two.ckpt")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "two.ckpt"), network.state_dict())
    assert _equal(create_model("ghostnet_050", checkpoint=tmp_path / "two.ckpt"), other)


def test_safetensors_load(tmp_path: Path, network: nn.Module) -> None:
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.safetensors"), network.state_dict())


@pytest.mark.parametrize(
    ("plain", "average", "taken"),
    [
        ("state_dict", "state_dict_ema", "state_dict_ema"),
        ("net", "net_E", "net_E"),
        ("model", "ema", "ema"),
        ("model_state_dict", "ema_model.module", "ema_model.module"),
        ("model", "model_ema", "model"),  # whose trainer scores `model`
        ("state_dict.model", "state_dict.model_ema.module", "state_dict.model"),
        ("state_dict", "model_ema", "model_ema"),
    ],
)
def test_of_several_the_one_is_taken_that_evaluation_reads(
    tmp_path: Path, network: nn.Module, capsys: pytest.CaptureFixture[str], plain: str, average: str, taken: str
) -> None:
    averaged = {k: v + 1 for k, v in network.state_dict().items()}
    torch.save(
        {**_nested(plain, network.state_dict()), **_merged(plain, average, network, averaged)}, tmp_path / "x.pth"
    )
    expected, other = (averaged, plain) if taken == average else (network.state_dict(), average)
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), expected)
    said = capsys.readouterr().err
    assert f"weights under {taken!r} taken; {other} would fit too (--key)" in said
    assert len(said.splitlines()) == 1
    chosen = create_model(NAME, checkpoint=tmp_path / "x.pth", checkpoint_key=other)
    assert _equal(chosen, network.state_dict() if other == plain else averaged)


def _nested(key: str, state: dict[str, Tensor]) -> dict[str, Any]:
    top, _, rest = key.partition(".")
    return {top: {f"{rest}.{k}" if rest else k: v for k, v in state.items()}}


def _merged(plain: str, average: str, network: nn.Module, averaged: dict[str, Tensor]) -> dict[str, Any]:
    """The average as a group of its own, or among the plain one's names as Lightning saves both."""
    both = _nested(average, averaged)
    for top in both:
        both[top] |= _nested(plain, network.state_dict()).get(top, {})
    return both


def test_two_networks_of_equal_standing_must_be_told_apart(tmp_path: Path, network: nn.Module) -> None:
    other = {k: v + 1 for k, v in network.state_dict().items()}
    torch.save({"student": network.state_dict(), "teacher": other}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"several networks that fit mnasnet_small: .*--key: student, teacher"):
        create_model(NAME, checkpoint=tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth", checkpoint_key="teacher"), other)
    with pytest.raises(CheckpointError, match="no weights under --key 'nobody': there are student, teacher"):
        create_model(NAME, checkpoint=tmp_path / "x.pth", checkpoint_key="nobody")
    torch.save({"student": network.state_dict(), "teacher": network.state_dict()}, tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), network.state_dict())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda v: v * float("nan"), r"not finite .*: conv_head\.weight"),
        (lambda v: v.to(torch.int8), r"whole numbers instead of weights: conv_head\.weight"),
        (lambda v: v[:3], r"of another shape: conv_head\.weight \(3, "),
        (lambda v: v.to_sparse(), r"no plain tensors: conv_head\.weight"),
        (lambda v: v.to("meta"), r"no plain tensors: conv_head\.weight"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, network: nn.Module, fault: Any, said: str) -> None:
    state = dict(network.state_dict())
    torch.save({**state, "conv_head.weight": fault(state["conv_head.weight"])}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=said):
        create_model(NAME, checkpoint=tmp_path / "x.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("rounds", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_bytes_load_or_end_in_one_line(tmp_path: Path, network: nn.Module, suffix: str, rounds: int) -> None:
    path, draw = tmp_path / f"x.{suffix}", random.Random(0)
    save_file(network.state_dict(), path) if suffix == "safetensors" else torch.save(network.state_dict(), path)
    whole, lines = path.read_bytes(), []
    for _ in range(rounds):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 3, 30])):  # most of them in the header or the pickle
            damaged[draw.randrange(len(whole) if draw.random() < 0.3 else 20_000)] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice([len(whole), len(whole), draw.randrange(len(whole))])])
        try:
            create_model(NAME, checkpoint=path)
        except CheckpointError as error:
            lines.append(str(error))
    assert lines
    assert all(map(str.isprintable, lines))


def test_what_norms_counted_is_taken_where_it_fits_and_no_fault_where_it_does_not(
    tmp_path: Path, network: nn.Module
) -> None:
    counts = {k: torch.zeros(2, 3) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    torch.save({**network.state_dict(), **counts, "extra.num_batches_tracked": torch.ones(())}, tmp_path / "x.pth")
    assert _equal(create_model(NAME, checkpoint=tmp_path / "x.pth"), network.state_dict())


def test_odd_containers_end_in_one_line(tmp_path: Path) -> None:
    torch.save({"\x1b[31m\u2028" + "x" * 5000: torch.ones(2)}, tmp_path / "x.pth")  # a name that steers a terminal
    with pytest.raises(CheckpointError, match=r"does not fit") as caught:
        create_model(NAME, checkpoint=tmp_path / "x.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    knot: dict[str, Any] = {"a": {}}
    knot["a"]["again"] = knot
    wide: Any = {"x": torch.ones(1)}
    for _ in range(40):
        wide = {str(i): wide for i in range(20)}  # 20 ** 40 paths to one tensor
    for content in (
        {1: torch.ones(2)},
        {(1, 2): torch.ones(2)},
        {"": torch.ones(2)},
        [],
        torch.ones(2),
        knot,
        wide,
        None,
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=r"holds no state dict|does not fit|more than 1,000,000 names"):
            create_model(NAME, checkpoint=tmp_path / "x.pth")
    for content in (b"((((.......", b"\x80\x02(.", b"", b"\x80\x04\x95", b"PK\x03\x04", b"a" * 100):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
            create_model(NAME, checkpoint=tmp_path / "x.pth")


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
        tensors_of(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


def test_options_and_scores_beside_the_weights_are_taken_as_authors_save_them(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=1e-3, model="x", sizes=[224])
    scores = {"top1": np.float64(71.5), "top5": np.float32(90), "epoch": np.int64(3), "best": np.bool_(True)}
    torch.save(
        {"net_E": {"a": torch.ones(1)}, "net": {"a": torch.zeros(1)}, "args": args, **scores}, tmp_path / "x.pth"
    )
    assert tensors_of(tmp_path / "x.pth") == {"net_E.a": torch.ones(1), "net.a": torch.zeros(1)}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_damaged(tmp_path: Path, network: nn.Module, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    torch.save(network.state_dict(), path) if suffix == "pth" else save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        create_model(NAME, checkpoint=path)


def test_a_missing_file_and_a_file_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not found: .*nowhere\.pth"):
        tensors_of(tmp_path / "nowhere.pth")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"holds no state dict \(found: epoch\)"):
        tensors_of(tmp_path / "x.pth")


@pytest.mark.parametrize("name", [NAME, "shvit_s1", "cas_vit_xs"])
def test_conversion_keeps_the_files_classes_and_channels_and_leaves_a_record(tmp_path: Path, name: str) -> None:
    network = create_model(name, num_classes=7, in_chans=1)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "official.pth")
    out = convert_checkpoint(name, ModelOptions(checkpoint=tmp_path / "official.pth"), tmp_path / "ours.safetensors")
    record = load_record_of(Checkpoint, out)
    assert (record.model, record.num_classes, record.in_chans) == (name, 7, 1)
    assert _equal(create_model(name, checkpoint=out, num_classes=7, in_chans=1), network.state_dict())
