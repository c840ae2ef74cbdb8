"""What a command is about: networks by name and weights of others, in the size of the file and as options say."""

import argparse
import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Checkpoint, load_record_of
from mobilezoo.cli.main import main
from mobilezoo.cli.model_options import NetworkFlags
from mobilezoo.errors import CheckpointError, ConfigError, UnknownNameError
from mobilezoo.models import create_model
from mobilezoo.models.weights import classes_of
from mobilezoo.workflows.convert import convert_checkpoint
from mobilezoo.workflows.evaluate import Loading, evaluate
from mobilezoo.workflows.export import export_network
from mobilezoo.workflows.load_model import load_model
from mobilezoo.workflows.model_options import ModelOptions, read_labels
from mobilezoo_export import ExportConfig

ZOO, TIMM = "mnasnet_small", "timm:mobilenetv3_small_050"


def built(name: str, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **sizes).eval()


def saved(path: Path, name: str, **sizes: int) -> ModelOptions:
    """As timm's trainer saves what it has tuned."""
    options = argparse.Namespace(model=name, lr=1e-3)
    torch.save({"state_dict": built(name, **sizes).state_dict(), "arch": name, "args": options, "epoch": 3}, path)
    return ModelOptions(checkpoint=path)


@pytest.mark.parametrize("name", [ZOO, *(pytest.param(name, marks=pytest.mark.slow) for name in (TIMM, "cas_vit_xs"))])
@pytest.mark.parametrize(("classes", "channels"), [(1, 3), (2, 3), (4, 1), (7, 4)])
def test_classes_and_channels_are_the_files(tmp_path: Path, name: str, classes: int, channels: int) -> None:
    said = saved(tmp_path / "tuned.pth.tar", name, num_classes=classes, in_chans=channels)
    loaded = load_model(name, said)
    assert (classes_of(loaded.network), loaded.in_chans, loaded.name) == (classes, channels, name)
    x = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), built(name, num_classes=classes, in_chans=channels)(x))
    with pytest.raises(CheckpointError, match=rf"has {classes} classes, the network 9: leave --num-classes out"):
        load_model(name, said.model_copy(update={"num_classes": 9}))
    with pytest.raises(CheckpointError, match=rf"takes {channels} input channels, not 5: leave --in-chans out"):
        load_model(name, said.model_copy(update={"in_chans": 5}))


def test_options_say_what_the_file_does_not(tmp_path: Path) -> None:
    said = saved(tmp_path / "tuned.pth", TIMM, num_classes=2).model_copy(
        update={"labels": ("cat", "dog"), "resolution": (96, 96), "mean": (0.5,), "std": (0.1, 0.2, 0.3)}
    )
    loaded = load_model(TIMM, said)
    assert (loaded.labels, loaded.resolution, loaded.random_weights) == (("cat", "dog"), (96, 96), False)
    assert (loaded.preprocessing.mean, loaded.preprocessing.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    for wrong, message in (
        ({"labels": ("a", "b", "c")}, "3 labels for the 2 classes"),
        ({"mean": (0.5, 0.5)}, "--mean has 2 numbers for 3 input channels"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_model(TIMM, said.model_copy(update=wrong))
    fresh = load_model(ZOO, ModelOptions(num_classes=3, in_chans=2, resolution=64))
    assert fresh.network(torch.zeros(1, 2, 64, 64)).shape == (1, 3)


def test_a_fixed_size_network_is_built_for_the_resolution() -> None:
    loaded = load_model("timm:test_vit", ModelOptions(resolution=96, num_classes=3))
    assert loaded.network(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_what_cannot_be_resolved_is_one_line(tmp_path: Path) -> None:
    said = saved(tmp_path / "tuned.pth", ZOO, num_classes=2)
    with pytest.raises(ConfigError, match=r"does not say which network it is of: name that, and add --checkpoint"):
        load_model(str(tmp_path / "tuned.pth"))
    with pytest.raises(UnknownNameError, match="did you mean mobilenetv3_small_050"):
        load_model("timm:mobilenetv3_smal_050")
    with pytest.raises(ConfigError, match="Invalid pretrained tag"):
        load_model("timm:resnet18.nobodys")
    with pytest.raises(CheckpointError, match="does not fit timm:resnet18"):
        load_model("timm:resnet18", said)


def test_our_own_record_beside_the_weights_is_read(tmp_path: Path) -> None:
    official = saved(tmp_path / "tuned.pth", ZOO, num_classes=2)
    ours = convert_checkpoint(ZOO, official.model_copy(update={"labels": ("cat", "dog"), "resolution": (96, 96)}))
    assert ours == tmp_path / "tuned.safetensors"
    assert load_record_of(Checkpoint, ours).labels == ("cat", "dog")
    loaded = load_model(ZOO, ModelOptions(checkpoint=ours))
    assert (loaded.labels, loaded.resolution) == (("cat", "dog"), (96, 96))
    assert load_model(str(ours), ModelOptions(resolution=64)).resolution == (64, 64)
    with pytest.raises(CheckpointError, match=r"holds mnasnet_small, not shvit_s1"):
        load_model("shvit_s1", ModelOptions(checkpoint=ours))


def test_a_converted_timm_network_is_found_again_by_its_record(tmp_path: Path) -> None:
    ours = convert_checkpoint(TIMM, saved(tmp_path / "tuned.pth", TIMM, num_classes=2))
    assert load_record_of(Checkpoint, ours).model == TIMM
    loaded = load_model(str(ours))
    assert (loaded.name, classes_of(loaded.network)) == (TIMM, 2)


@pytest.mark.slow
def test_a_file_made_of_a_timm_network_is_scored_beside_the_same_weights(tmp_path: Path) -> None:
    average = {k: v + 0.01 for k, v in built(TIMM, num_classes=10).state_dict().items() if v.is_floating_point()}
    content = {"model": built(TIMM, num_classes=10).state_dict(), "ema": average}
    torch.save(content, tmp_path / "two.pth")
    said = ModelOptions(checkpoint=tmp_path / "two.pth", key="model", resolution=32, mean=(0.5,), std=(0.25,))
    loaded = load_model(TIMM, said)
    (result,) = export_network(
        loaded,
        ExportConfig(targets=("onnx",), precisions=("fp32",), overwrite=True, parity_images=8),
        tmp_path / "out",
        isolate=False,
    )
    assert result.path == str(tmp_path / "out" / "mobilenetv3_small_050.fp32.onnx")
    record = load_record_of(Artifact, result.path)
    assert (record.model, record.checkpoint_key) == (TIMM, "model")
    scores = evaluate(result.path, "digits", ModelOptions(), loading=Loading(64, 0))
    assert scores.pytorch is not None
    assert scores.pytorch.loss == pytest.approx(scores.loss, rel=1e-4)  # not the average, nor another size


@pytest.mark.parametrize(
    ("content", "name", "labels"),
    [
        ("cat\ndog\n", "l.txt", ("cat", "dog")),
        ('["cat", "dog"]', "l.json", ("cat", "dog")),
        ('{"dog": 1, "cat": 0}', "l.json", ("cat", "dog")),
    ],
)
def test_labels_come_from_files_and_lists(tmp_path: Path, content: str, name: str, labels: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content)
    assert read_labels(str(tmp_path / name)) == labels
    assert read_labels("cat, dog") == labels


@pytest.mark.parametrize(
    "flags",
    [
        {"labels": "cat"},
        {"labels": "cat,,dog"},
        {"labels": "nowhere.txt"},
        {"resolution": "0"},
        {"resolution": "²"},
        {"resolution": "9" * 5000},
        {"mean": "a,b,c"},
        {"mean": "nan"},
        {"std": "0,1,1"},
        {"std": ""},
    ],
)
def test_a_wrong_option_is_named(flags: dict[str, str]) -> None:
    with pytest.raises(Exception, match=next(iter(flags.values()))[:20] or "std") as caught:
        NetworkFlags(**flags).parsed()  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigError) or "not found" in str(caught.value)


def test_the_command_line_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "two.pth", ZOO, num_classes=2)
    words = ["convert", str(tmp_path / "two.pth"), "--model", ZOO, "--labels", "cat,dog", "--resolution", "96"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--mean", "0.5", "--std", "0.5", "--key", "state_dict"])
    assert not done.value.code
    record = json.loads((tmp_path / "two.safetensors.json").read_text())
    assert (record["labels"], record["resolution"], record["num_classes"]) == (["cat", "dog"], [96, 96], 2)
    assert record["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert timm.is_model(TIMM.removeprefix("timm:"))
    with pytest.raises(SystemExit) as done:
        main(["eval", ZOO, "--checkpoint", str(tmp_path / "two.pth"), "--num-classes", "5", "-q"])
    assert done.value.code == 2
    assert "leave --num-classes out" in capsys.readouterr().err
