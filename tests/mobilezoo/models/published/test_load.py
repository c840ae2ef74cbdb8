"""Published weights end in networks: through our factory, timm's, and the workflows."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

import mobilezoo
from mobilezoo.artifacts import Artifact, Checkpoint, load_record_of
from mobilezoo.cli.model_options import chosen_weights, with_tags
from mobilezoo.errors import ConfigError
from mobilezoo.models import load_model_config, registry
from mobilezoo.models.published.choose import WeightsError
from mobilezoo.workflows.load_model import load_model
from mobilezoo.workflows.model_options import ModelOptions

from .conftest import MODEL, Host, published, trained

PATH = "/files/official.pth"
SIDE = 64


@pytest.fixture
def zoo(host: Host, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The zoo, one of whose networks has its weights at the stand-in host."""
    host.files[PATH] = weights
    first = published(host).file
    second = first.model_copy(update={"key": ("model_ema",), "resolution": (96, 96), "crop_pct": 0.95})
    config = registry.load_model_config(MODEL)
    ours = config.model_copy(update={"weights": {"in1k": first, "ema_in1k": second}})
    plain = registry.parse_model_config

    def parse(data: Any, name: str, source: str) -> Any:
        return ours if name == MODEL else plain(data, name, source)

    monkeypatch.setattr(registry, "parse_model_config", parse)
    return host


def same(network: nn.Module, other: nn.Module) -> bool:
    x_bchw = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.equal(network.eval()(x_bchw), other.eval()(x_bchw))


def test_one_word_loads_what_the_record_names(zoo: Host) -> None:
    network = mobilezoo.create_model(MODEL, pretrained=True)
    assert same(network, trained(0))
    assert same(mobilezoo.create_model(MODEL, pretrained="ema_in1k"), trained(1))
    assert same(timm.create_model(MODEL, pretrained=True), trained(0))
    averaged = timm.create_model(f"{MODEL}.ema_in1k", pretrained=True)
    assert same(averaged, trained(1))
    cfg = averaged.pretrained_cfg
    assert (cfg["tag"], cfg["license"], cfg["input_size"], cfg["crop_pct"]) == ("ema_in1k", "MIT", (3, 96, 96), 0.95)
    assert timm.data.resolve_model_data_config(averaged)["input_size"] == (3, 96, 96)
    fresh = timm.create_model(f"{MODEL}.in1k")
    assert fresh.pretrained_cfg["tag"] == "in1k"
    assert not same(fresh, trained(0))
    assert len(zoo.requests) == 2  # one for each tag


def test_other_classes_channels_and_features_are_timms(zoo: Host) -> None:
    expected = trained(0)
    few = mobilezoo.create_model(MODEL, pretrained=True, num_classes=7)
    assert few.classifier.weight.shape[0] == 7
    assert torch.equal(few.conv_head.weight, expected.conv_head.weight)
    grey = mobilezoo.create_model(MODEL, pretrained=True, in_chans=1)
    assert torch.allclose(grey.conv_stem.weight, expected.conv_stem.weight.sum(1, keepdim=True))
    bare = timm.create_model(MODEL, pretrained=True, num_classes=0)
    x_bchw = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        whole = expected.eval()
        assert torch.equal(bare.eval()(x_bchw), whole.forward_head(whole.forward_features(x_bchw), pre_logits=True))
    pyramid = timm.create_model(MODEL, pretrained=True, features_only=True)
    assert torch.equal(pyramid.conv_stem.weight, expected.conv_stem.weight)


def test_what_is_not_there_is_one_line(zoo: Host) -> None:
    with pytest.raises(WeightsError, match="has no weights tagged 'ema_in1': did you mean ema_in1k"):
        mobilezoo.create_model(MODEL, pretrained="ema_in1")
    with pytest.raises(WeightsError, match="has no weights tagged 'other': there are in1k, ema_in1k"):
        timm.create_model(f"{MODEL}.other", pretrained=True)
    with pytest.raises(WeightsError, match="emo2_20m: its weights were never published; there are some of emo2_"):
        mobilezoo.create_model("emo2_20m", pretrained=True)
    with pytest.raises(WeightsError, match="nor are those of any other favit: bring your own"):
        mobilezoo.create_model("favit_b0", pretrained=True)
    with pytest.raises(ConfigError, match="choose one"):
        mobilezoo.create_model(MODEL, checkpoint="x.pth", pretrained=True)
    for what, options, said in (
        (MODEL, ModelOptions(checkpoint=Path("x"), pretrained=True), "--checkpoint PATH or --pretrained, not both"),
        ("x.safetensors", ModelOptions(pretrained=True), "not found"),
    ):
        with pytest.raises(mobilezoo.MobilezooError, match=said):
            load_model(what, options)


@pytest.mark.slow
def test_records_name_whose_weights_they_are_made_of(
    zoo: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilezoo.workflows.convert import convert_checkpoint
    from mobilezoo.workflows.export import load_export_config

    monkeypatch.chdir(tmp_path)
    loaded = load_model(MODEL, ModelOptions(pretrained="ema_in1k", resolution=(64, 64)))
    assert (loaded.preprocessing.crop_pct, loaded.resolution, loaded.random_weights) == (0.95, (64, 64), False)
    assert same(loaded.network, trained(1))
    assert loaded.folder is None  # nothing is written beside the cache's file
    files = load_export_config("default", ("targets=[onnx]", "precisions=[fp32]"))
    pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
    from mobilezoo.workflows.export import export_network

    result = export_network(loaded, files, tmp_path / "files", isolate=False)[0]
    assert result.path is not None
    origin = load_record_of(Artifact, result.path).origin
    assert origin is not None
    assert (origin.name, origin.license) == (f"{MODEL}.ema_in1k", "MIT")
    own = convert_checkpoint(
        MODEL, ModelOptions(checkpoint=loaded.checkpoint, key="model"), tmp_path / "own.safetensors"
    )
    assert load_record_of(Checkpoint, own).origin is None


def test_a_training_begins_with_them_and_its_record_names_them(zoo: Host, tmp_path: Path) -> None:
    changes = (
        f"model={MODEL}",
        "pretrained=ema_in1k",
        "train.epochs=1",
        "train.schedule.warmup_epochs=0",
        "train.resolution=32",
        "data.batch_size=256",
        "tune=linear",
    )
    best = mobilezoo.train("digits", *changes, out=tmp_path / "run")
    tensors = load_file(best.path)
    assert torch.equal(tensors["conv_head.weight"], trained(1).state_dict()["conv_head.weight"])
    record = json.loads((tmp_path / "run" / "best.safetensors.json").read_text())
    assert record["origin"]["name"] == f"{MODEL}.ema_in1k"
    assert record["origin"]["license"] == "MIT"
    assert len(record["origin"]["sha256"]) == 64


def test_the_command_line_takes_a_tag_or_none() -> None:
    assert with_tags(["eval", "--pretrained", "shvit_s1"]) == ["eval", "--pretrained=", "shvit_s1"]
    assert with_tags(["eval", "shvit_s1", "--pretrained", "timm_in1k"]) == [
        "eval",
        "shvit_s1",
        "--pretrained=timm_in1k",
    ]
    assert with_tags(["eval", "--pretrained=other", "shvit_s1"]) == ["eval", "--pretrained=other", "shvit_s1"]
    assert with_tags(["export", "shvit_s1", "--pretrained"]) == ["export", "shvit_s1", "--pretrained="]
    assert (chosen_weights(None), chosen_weights(""), chosen_weights("in1k")) == (False, True, "in1k")
    every = {tag for name in mobilezoo.list_models() for tag in load_model_config(name).weights}
    assert all(with_tags(["--pretrained", tag]) == [f"--pretrained={tag}"] for tag in every)
