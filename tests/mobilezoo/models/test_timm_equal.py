"""Families whose reference is timm: with timm's weights they give timm's output, plain and fused."""

import pytest
import timm
import torch
from torch import nn

from mobilezoo.models import create_model
from mobilezoo.models.fuse import fuse, relative_difference
from mobilezoo.models.randomize import randomize_norms

CASES = [
    pytest.param("halonet26t", "halonet26t", 256, marks=pytest.mark.slow),
    pytest.param("eca_halonext26ts", "eca_halonext26ts", 256, marks=pytest.mark.slow),
    pytest.param("sehalonet33ts", "sehalonet33ts", 256, marks=pytest.mark.slow),
    pytest.param("halonet50ts", "halonet50ts", 256, marks=pytest.mark.slow),
    pytest.param("haloregnetz_b", "haloregnetz_b", 224, marks=pytest.mark.slow),
    pytest.param("fastvit_t8", "fastvit_t8", 64),
    pytest.param("fastvit_sa12", "fastvit_sa12", 96, marks=pytest.mark.slow),
    pytest.param("fastvit_ma36", "fastvit_ma36", 64, marks=pytest.mark.slow),
    pytest.param("fastvit_mci0", "fastvit_mci0", 64, marks=pytest.mark.slow),
    pytest.param("fastvit_mci3", "fastvit_mci3", 64, marks=pytest.mark.slow),
]
"""Our name, timm's, and the side of an image that timm's takes."""


def _theirs(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=1000)
    return randomize_norms(model).eval()


@pytest.mark.parametrize(("ours", "theirs", "side"), CASES)
@torch.no_grad()
def test_timms_weights_give_timms_output(ours: str, theirs: str, side: int) -> None:
    reference = _theirs(theirs)
    model = create_model(ours).eval()
    model.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, side, side)
    expected = reference(x)
    assert relative_difference(model(x), expected) <= 1e-5
    fused = fuse(model)
    assert relative_difference(fused(x), expected) <= 1e-4
