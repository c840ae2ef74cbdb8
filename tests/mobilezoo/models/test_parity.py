"""Official files load as published and give the official network's output: the checks of `../shared/parity`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from mobilezoo.config import config_names
from mobilezoo.errors import CheckpointError
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.macs import count

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
}
"""Official name → largest difference of the logits, over their standard deviation."""

TORCHVISION = {"mnasnet0_5": "mnasnet_tv_050", "mnasnet1_3": "mnasnet_tv_130"}
COSTED = [n for n in config_names("models") if n.startswith(("mobilenetv2", "mobilenext", "ghost", "shvit", "mnasnet"))]


def test_every_reference_is_checked(shared: Path) -> None:
    assert {path.stem for path in (shared / "parity").glob("*.json")} == set(TOLERANCES)


@pytest.mark.parametrize(("name", "tolerance"), TOLERANCES.items())
def test_an_official_file_gives_the_official_output(
    reference: Callable[[str], Any], tmp_path: Path, name: str, tolerance: float
) -> None:
    state, images, logits = reference(name)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / f"{name}.pth")
    # these outputs were made on a CPU, where the official MobileMamba sums its scans over the batch
    overrides = ("official_cpu_batch=true",) if name.startswith("MobileMamba") else ()
    model = create_model(load_model_config(name, overrides), checkpoint=tmp_path / f"{name}.pth").eval()
    with torch.no_grad():
        difference = (model(images) - logits).abs().max() / logits.std()
    assert float(difference) <= tolerance


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


@pytest.mark.parametrize("name", COSTED)
def test_parameters_and_macs_are_the_measured_official_ones(facts: dict[str, Any], name: str) -> None:
    config = load_model_config(name)
    keys = (name, *config.aliases, *(f"tv_{a}" for a in config.aliases), *(f"{a}_unofficial" for a in config.aliases))
    fact = next(facts[key] for key in keys if key in facts)
    measured = count(create_model(config).eval(), config.resolution)
    assert measured["params"] == fact["params"]
    assert measured["macs"] == pytest.approx(fact["macs"], rel=0.01)
