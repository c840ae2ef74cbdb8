"""Every family keeps the contract of `mobilezoo.testing.FamilyConformance`; a new one adds a line here."""

from typing import Any

import pytest

from mobilezoo.models import create_model
from mobilezoo.testing import FamilyConformance

STRIDES = {
    "mobilenetv2_ca_100": (2, 4, 8, 16, 32),
    "mnasnet_small": (2, 4, 8, 16, 32),
    "ghostnetv2_100": (2, 4, 8, 16, 32),
    "shvit_s1": (16, 32, 64),
    "cas_vit_xs": (4, 8, 16, 32),
    "emo2_1m": (4, 8, 16, 32),
    "mobilemamba_t2": (16, 32, 64),
    "mobilenext_035": (4, 8, 16, 32),
    "efficientmod_xxs": (4, 8, 16, 32),
    "ffnet_1": (4, 8, 16, 32),
    "care_s0": (4, 8, 16, 32),
    "smt_t": (4, 8, 16, 32),
    "focalnet_3m": (4, 8, 16, 32),
    "ravlt_t": (4, 8, 16, 32),
    "moat_tiny_0": (4, 8, 16, 32),
    "affnet_et": (2, 4, 8, 16, 32),
    "agent_deit_t": (16, 16, 16),
    "agent_pvt_t": (4, 8, 16, 32),
    "inline_deit_t": (16, 16, 16),
    "nat_3m": (4, 8, 16, 32),
    "illama_t": (16, 16, 16),
    "favit_b0": (4, 8, 16, 32),
    "moh_transnext_4m": (4, 8, 16, 32),
    "halonet_3m": (2, 4, 8, 16, 32),
    "fastvit_t8": (4, 8, 16, 32),
    "davit_3m": (4, 8, 16, 32),
    "iformer_t": (4, 8, 16, 32),
    "dsm_3m": (4, 8, 16, 32),
    "lightnet_deit_t": (16, 16, 16),
    "loope_deit_t": (16, 16, 16),
}
"""Smallest variant of every family (and plan) → strides of its features."""
SMALLEST = {"ghostnetv2_100": 33, "cas_vit_xs": 32, "emo2_1m": 32, "mobilemamba_t2": 64, "mobilenext_035": 32}
SMALLEST |= {"care_s0": 32, "smt_t": 3, "focalnet_3m": 32}
SMALLEST |= {"agent_deit_t": 16, "agent_pvt_t": 32, "inline_deit_t": 16, "illama_t": 16}
SMALLEST |= {"favit_b0": 29, "lightnet_deit_t": 16, "loope_deit_t": 16}
"""Least side in pixels; the others pad and take any."""
PATCHES = {"care_s0": 4, "smt_t": 1, "focalnet_3m": 4, "agent_deit_t": 1, "agent_pvt_t": 4, "inline_deit_t": 1}
PATCHES |= {"illama_t": 1, "lightnet_deit_t": 1, "loope_deit_t": 1}
"""How many of the stages, from the first, cut maps into unpadded patches: an odd row or column is left out there."""
WITHOUT_DROP_PATH = ("ghostnetv2_100",)

WITHOUT_GRADIENT = {
    "agent_deit_t": r"^blocks\.11\.attn\.",
    "inline_deit_t": r"^blocks\.11\.attn\.local\.",
    "ghostnetv2_100": r"^blocks\.8\.\d+\.ghost1\.short_conv\.[13]\.bias$",
}
"""What the last block computes for the patches alone, of which the class token reads nothing any more; and biases of
GhostNetV2's last gate, whose map is one pixel here: the next norm takes them off, and rounding alone is left."""
CHANNELS = {"cas_vit_xs": [48, 56, 112, 220], "emo2_1m": [32, 48, 80, 180], "mobilemamba_t2": [144, 272, 368]}
"""Widths of the official networks' features."""


def conformance(name: str) -> type[FamilyConformance]:
    """The suite of one network."""
    attributes: dict[str, Any] = {
        "model": name,
        "strides": STRIDES[name],
        "smallest": SMALLEST.get(name, 1),
        "patches": PATCHES.get(name),
        "drop_path": name not in WITHOUT_DROP_PATH,
        "without_gradient": WITHOUT_GRADIENT.get(name, r"(?!)"),
        "sizes": ((160, 160), (128, 96), (129, 97)),
    }
    return type(f"Test_{name}", (FamilyConformance,), attributes)


QUICK = ("mobilenetv2_ca_100", "mnasnet_small", "ghostnetv2_100", "shvit_s1", "cas_vit_xs", "emo2_1m", "mobilemamba_t2")
QUICK += ("mobilenext_035", "agent_deit_t", "nat_3m", "fastvit_t8")
"""Networks of the default tests: of every kind of plan and head, one; the others are slow for their number alone."""

for _name in STRIDES:
    _suite = conformance(_name)
    globals()[f"Test_{_name}"] = _suite if _name in QUICK else pytest.mark.slow(_suite)


@pytest.mark.parametrize(("name", "channels"), CHANNELS.items())
def test_features_are_as_wide_as_the_official_ones(name: str, channels: list[int]) -> None:
    assert create_model(name, features_only=True).feature_info.channels() == channels
