"""Official files load as published and give the official network's output: also once fused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from mobilezoo.config import config_names
from mobilezoo.errors import CheckpointError
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.fuse import fuse
from mobilezoo.models.macs import analyze, count
from mobilezoo.resolution import as_size
from mobilezoo.testing.references import Reference, reference_names

TOLERANCES = {
    "mbv2_ca": 2e-3,  # its own rounding is 6e-4 with these weights
    "ghostnet_100": 1e-4,
    "ghostnetv2_100": 1e-4,
    "ghostnetv2_160": 1e-4,
    "shvit_s1": 1e-4,
    "shvit_s4": 1e-4,
    "rcvit_xs": 1e-4,
    "rcvit_m": 1e-4,
    "rcvit_xs_distheads": 1e-4,
    "EMO2_1M_k5_hybrid": 1e-4,
    "EMO2_5M_k5_hybrid": 1e-4,
    "EMO2_5M_k5_hybrid_256": 1e-4,
    "MobileMamba_T2": 1e-4,
    "MobileMamba_B1": 1e-4,
    "efficientmod_xxs": 1e-4,
    "efficientmod_s": 1e-4,
    "efficientmod_s_conv": 1e-4,
    "ffnet_1": 1e-4,
    "care_s0": 1e-4,
    "care_s2": 1e-4,
    "smt_t": 1e-4,
    "focalnet_tiny_srf": 1e-4,
    "focalnet_tiny_iso": 1e-4,
    "ravlt_t": 1e-4,
    "eca_mobilenetv2": 1e-4,
    "moat_tiny_0": 1e-4,
    "moat_tiny_2": 1e-4,
    "moat_tiny_3": 1e-4,
    "affnet_et": 1e-4,
    "affnet_et_layernorm": 1e-4,
    "affnet_base": 1e-4,
    "affnet_base_layernorm": 1e-4,
    "agent_deit_t": 1e-4,
    "agent_pvt_t": 1e-4,
    "inline_deit_t": 1e-4,
    "inline_pvt_t": 1e-4,
    "nat_mini": 1e-4,
    "illama_t": 1e-4,
    "illama_t_softmask05": 1e-4,
    "favit_b0": 1e-4,
    "favit_b1": 1e-4,
    "iFormer_t": 1e-4,
    "moh_transnext_small_75": 1e-3,  # the choice of heads is a step: rounding may turn one position's
    "moh_transnext_small_80": 1e-3,
}
"""Official name → largest difference of the logits, over their standard deviation."""

QUICK = ("ghostnet_100", "rcvit_xs", "efficientmod_xxs", "mnasnet_small", "mobilenext_035")
"""What the default tests compare; the others are slow, since each is a network of full size."""


def _param(name: str, *values: float) -> Any:
    return pytest.param(name, *values, marks=[] if name in QUICK else [pytest.mark.slow])


TORCHVISION = {"mnasnet0_5": "mnasnet_tv_050"}
CORE = ("cas_vit", "emo2", "ghost", "mnasnet", "mobilemamba", "mobilenetv2", "mobilenext", "shvit")
COSTED = [name for name in config_names("models") if name.startswith(CORE)]


def test_every_reference_of_a_family_at_hand_is_checked(references: Path) -> None:
    assert set(TOLERANCES) <= set(reference_names(references))


@pytest.mark.parametrize(("name", "tolerance"), [_param(*item) for item in TOLERANCES.items()])
def test_an_official_file_gives_the_official_output_also_fused_and_image_by_image(
    reference: Callable[[str], Reference], tmp_path: Path, name: str, tolerance: float
) -> None:
    official = reference(name)
    wrapped = {"state_dict": {f"module.{key}": value for key, value in official.state.items()}}
    torch.save(wrapped, tmp_path / f"{name}.pth")
    model = create_model(name, checkpoint=tmp_path / f"{name}.pth").eval()
    with torch.no_grad():
        assert official.difference(model(official.inputs)) <= tolerance
        fused = fuse(model)
        alone = [fused(image) for image in official.inputs.split(1)]
        assert official.difference(torch.cat(alone)) <= tolerance


COUNTED = ("affnet", "agent", "care", "eca", "efficientmod", "favit", "ffnet", "focalnet", "illama", "inline", "moat")
COUNTED += ("moh", "nat", "ravlt", "smt", "iFormer")


@pytest.mark.parametrize("name", [_param(name) for name in TOLERANCES if name.startswith(COUNTED)])
def test_parameters_and_operations_are_those_of_the_official_network(
    reference: Callable[[str], Reference], name: str
) -> None:
    facts, config = reference(name).facts, load_model_config(name)
    assert config.resolution == (facts["resolution"],) * 2
    model = create_model(config).eval()
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    if facts["macs"]:
        operations = analyze(model, config.resolution).total()
        # the reference counts norms; it counts no Fourier transforms, which are products here
        assert operations == pytest.approx(facts["macs"], rel=0.04 if name.startswith("affnet") else 0.01)


MISTAKEN = [("agent_deit_t", "inline_deit_t"), ("illama_t", "agent_deit_t"), ("agent_deit_t", "illama_t")]
MISTAKEN += [("favit_b0", "agent_pvt_t"), ("inline_pvt_t", "favit_b0"), ("favit_b0", "moh_transnext_4m")]
MISTAKEN += [("nat_mini", "nat_3m"), ("agent_pvt_t", "agent_deit_t")]


@pytest.mark.parametrize(
    ("theirs", "name"), [*MISTAKEN[:2], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MISTAKEN[2:])]
)
def test_an_official_file_of_another_network_is_told_in_one_line(
    reference: Callable[[str], Reference], tmp_path: Path, theirs: str, name: str
) -> None:
    torch.save(reference(theirs).state, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError) as told:
        create_model(name, checkpoint=tmp_path / "theirs.pth")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("official", "ours"), TORCHVISION.items())
def test_torchvisions_mnasnets_load_into_their_own_variants_only(tmp_path: Path, official: str, ours: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(official, weights=None)
    theirs(torch.randn(8, 3, 64, 64))  # running statistics that matter
    torch.save(theirs.eval().state_dict(), tmp_path / "tv.pth")
    x = torch.randn(2, 3, 97, 64)
    model = create_model(official, checkpoint=tmp_path / "tv.pth").eval()
    assert load_model_config(official).name == ours
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match="use mnasnet_tv_100"):
        create_model("mnasnet_b1", checkpoint=tmp_path / "tv.pth")


@pytest.mark.parametrize("name", [_param(name) for name in COSTED])
def test_parameters_and_macs_are_the_measured_official_ones(facts: dict[str, Any], name: str) -> None:
    config = load_model_config(name)
    keys = (name, *config.aliases, *(f"tv_{a}" for a in config.aliases), *(f"{a}_unofficial" for a in config.aliases))
    fact = next(facts[key] for key in keys if key in facts)
    measured = count(create_model(config).eval(), config.resolution)
    assert measured["params"] == fact["params"]
    assert measured["macs"] == pytest.approx(fact["macs"], rel=0.01)
    assert config.resolution == as_size(fact.get("resolution", config.resolution))
