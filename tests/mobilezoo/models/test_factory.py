"""timm's factory arguments mean for the zoo's networks what they mean for timm's own: compared field by field."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.models import PretrainedCfg, save_for_hf
from torch import nn

import mobilezoo
from mobilezoo.errors import ConfigError

OWN = "ghostnet_050"
ZOO = ("emo2_1m", "mnasnet_a1_035", "mobilenext_035", "cas_vit_xs")
"""timm's own staged builder, its EfficientNet, a class of ours, and one whose head has a norm."""
STRUCTURE = {"tag", "license", "architecture", "first_conv", "classifier", "file", "pool_size"}
"""Fields that differ between networks, what the registry says of published weights, and the folder."""
DATA: dict[str, Any] = {
    "input_size": (3, 96, 64),
    "mean": (0.1,),
    "std": (0.4,),
    "crop_pct": 0.9,
    "crop_mode": "border",
    "interpolation": "bilinear",
}
LABELS = ["a", "b", "c"]


def saved(name: str, folder: Path, **kwargs: Any) -> Path:
    """As a user of timm shares what was tuned with it."""
    torch.manual_seed(0)
    network = timm.create_model(name, **{"num_classes": 3, **kwargs})
    data = {**DATA, "input_size": (kwargs.get("in_chans", 3), *DATA["input_size"][1:])}
    save_for_hf(network, str(folder), model_config={"label_names": LABELS}, data_config=data, safe_serialization=True)
    return folder


def described(network: nn.Module) -> dict[str, Any]:
    """All that says how the network is used, without what is of one network alone."""
    built: Any = network
    cfg = {k: v for k, v in built.pretrained_cfg.items() if k not in STRUCTURE}
    args = {k: v for k, v in getattr(built, "_model_args", {}).items() if k != "global_pool"}
    data = resolve_model_data_config(network)
    return {"cfg": cfg, "data": data, "args": args}


LOADS: list[dict[str, Any]] = [
    {"pretrained": True},
    {"pretrained": False},
    {"pretrained": True, "num_classes": 5},
    {"pretrained": True, "num_classes": 0},
    {"pretrained": True, "in_chans": 1},
    {"pretrained": True, "pretrained_cfg_overlay": {"crop_pct": 0.5, "input_size": (3, 32, 32)}},
    {"pretrained": True, "features_only": True, "out_indices": (1, 2)},
    {"pretrained": True, "drop_rate": 0.3, "drop_path_rate": None},
    {"pretrained": True, "dtype": torch.float64},
    {"pretrained": True, "scriptable": True},
]


@pytest.mark.parametrize(
    ("name", "load"),
    [*((ZOO[0], load) for load in LOADS), *(pytest.param(name, LOADS[2], marks=pytest.mark.slow) for name in ZOO[1:])],
)
def test_what_was_shared_loads_as_timms_own_does(tmp_path: Path, name: str, load: dict[str, Any]) -> None:
    theirs = timm.create_model(f"local-dir:{saved(OWN, tmp_path / 'theirs')}", **load)
    ours = timm.create_model(f"local-dir:{saved(name, tmp_path / 'ours')}", **load)
    assert described(ours) == described(theirs)
    assert ours.pretrained_cfg["input_size"][1:] in ((96, 64), (32, 32))
    x_bchw = torch.randn(2, load.get("in_chans", 3), 64, 64, dtype=load.get("dtype"))
    outputs = [net.eval()(x_bchw) for net in (ours, theirs)]
    if load.get("features_only"):
        assert [f.shape[2:] for f in outputs[0]] == [(64 // r,) * 2 for r in ours.feature_info.reduction()]
    elif load.get("num_classes") != 0:
        assert outputs[0].shape == outputs[1].shape
    assert next(ours.parameters()).dtype == next(theirs.parameters()).dtype


@pytest.mark.parametrize("name", ZOO)
def test_the_weights_arrive(tmp_path: Path, name: str) -> None:
    folder = saved(name, tmp_path / "ours", in_chans=1)
    torch.manual_seed(0)
    original = timm.create_model(name, num_classes=3, in_chans=1).state_dict()
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    assert all(torch.equal(value, original[key]) for key, value in loaded.items())
    empty = timm.create_model(f"local-dir:{folder}").state_dict()
    assert any(not torch.equal(value, original[key]) for key, value in empty.items())
    pyramid = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).state_dict()
    flat = {key.replace(".", "_"): value for key, value in original.items()}
    assert all(torch.equal(value, flat[key.removeprefix("model.").replace(".", "_")]) for key, value in pyramid.items())


def test_weights_come_from_wherever_the_description_says(tmp_path: Path) -> None:
    name = ZOO[0]
    torch.manual_seed(1)
    source = mobilezoo.create_model(name, num_classes=4)
    state = dict(source.state_dict())
    save_file(state, tmp_path / "x.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "x.pth")
    torch.save(state, tmp_path / "bare.pth")
    ways: list[dict[str, Any]] = [
        {"pretrained_cfg_overlay": {"file": str(tmp_path / "x.safetensors"), "num_classes": 4}},
        {"pretrained_cfg_overlay": {"file": str(tmp_path / "x.pth"), "num_classes": 4}},
        {"pretrained_cfg": {"file": str(tmp_path / "x.pth"), "num_classes": 4}},
        {"pretrained_cfg": PretrainedCfg(file=str(tmp_path / "x.pth"), num_classes=4)},
        {
            "pretrained_cfg_overlay": {"url": (tmp_path / "bare.pth").as_uri(), "num_classes": 4},
            "cache_dir": tmp_path / "c",
        },
        {"pretrained_cfg_overlay": {"state_dict": state, "num_classes": 4}},
    ]
    for way in ways:
        for network in (
            timm.create_model(name, pretrained=True, **way),
            mobilezoo.create_model(name, pretrained=True, **way),
        ):
            assert network.num_classes == 4
            assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    after = timm.create_model(name, num_classes=4, checkpoint_path=str(tmp_path / "x.pth"))
    assert all(torch.equal(v, state[k]) for k, v in after.state_dict().items())


def test_a_description_without_a_source_and_a_tag_are_one_line() -> None:
    name = ZOO[0]
    with pytest.raises(ConfigError, match="its weights were never published; there are some of "):
        timm.create_model("emo2_20m", pretrained=True)
    with pytest.raises(ConfigError, match="has no weights tagged 'in22k'"):
        timm.create_model(f"{name}.in22k", pretrained=True)
    with pytest.raises(ConfigError, match=r"pretrained_cfg: .*nonsense"):
        timm.create_model(name, pretrained_cfg={"nonsense": 3})
    plain = timm.create_model(name)
    assert plain.pretrained_cfg["architecture"] == name
    assert timm.create_model(name, pretrained_cfg={"tag": "mine", "num_classes": 7}).pretrained_cfg["tag"] == "mine"
