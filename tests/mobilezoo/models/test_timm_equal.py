"""Families whose reference is timm: with timm's weights they give timm's output, plain and fused."""

import re
from pathlib import Path

import pytest
import timm
import torch
from timm.models.davit import checkpoint_filter_fn
from torch import nn

from mobilezoo.errors import CheckpointError
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.base import family_module
from mobilezoo.models.fuse import fuse, relative_difference
from mobilezoo.models.randomize import randomize_norms

CASES = [
    pytest.param("halonet26t", "halonet26t", 256, marks=pytest.mark.slow),
    pytest.param("eca_halonext26ts", "eca_halonext26ts", 256, marks=pytest.mark.slow),
    pytest.param("sehalonet33ts", "sehalonet33ts", 256, marks=pytest.mark.nightly),
    pytest.param("halonet50ts", "halonet50ts", 256, marks=pytest.mark.nightly),
    pytest.param("haloregnetz_b", "haloregnetz_b", 224, marks=pytest.mark.nightly),
    pytest.param("fastvit_t8", "fastvit_t8", 64),
    pytest.param("fastvit_sa12", "fastvit_sa12", 96, marks=pytest.mark.slow),
    pytest.param("fastvit_t12", "fastvit_t12", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_s12", "fastvit_s12", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_sa24", "fastvit_sa24", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_sa36", "fastvit_sa36", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_ma36", "fastvit_ma36", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_mci0", "fastvit_mci0", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_mci1", "fastvit_mci1", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_mci2", "fastvit_mci2", 64, marks=pytest.mark.nightly),
    pytest.param("fastvit_mci3", "fastvit_mci3", 64, marks=pytest.mark.slow),
    pytest.param("davit_tiny", "davit_tiny", 97, marks=pytest.mark.slow),
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
    config = load_model_config(ours)
    model = create_model(config).eval()
    model.load_state_dict(family_module(config.family).from_official(reference.state_dict(), model))
    x = torch.randn(2, 3, side, side)
    expected = reference(x)
    assert relative_difference(model(x), expected) <= 1e-5
    fused = fuse(model)
    assert relative_difference(fused(x), expected) <= 1e-4


DAVIT_OFFICIAL = (
    (r"^stem\.", "patch_embeds.0."),
    (r"^stages\.(\d+)\.downsample\.", r"patch_embeds.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"main_blocks.\1."),
    (r"^(patch_embeds\.\d+)\.conv\.", r"\1.proj."),
    (r"\.cpe1\.", ".cpe.0."),
    (r"\.cpe2\.", ".cpe.1."),
    (r"^head\.norm\.", "norms."),
    (r"^head\.fc\.", "head."),
)
"""timm's keys → those of dingmyu/davit."""


def _official_davit_key(key: str) -> str:
    for pattern, text in DAVIT_OFFICIAL:
        key = re.sub(pattern, text, key)
    return key


@torch.no_grad()
def test_davits_official_keys_load_as_timm_loads_them(tmp_path: Path) -> None:
    arguments = {"embed_dims": (32, 64, 128, 256), "num_heads": (1, 2, 4, 8)}
    reference = timm.create_model("davit_tiny", **arguments).eval()
    official = {_official_davit_key(key): value for key, value in randomize_norms(reference).state_dict().items()}
    assert "main_blocks.2.1.0.cpe.1.proj.weight" in official
    reference.load_state_dict(checkpoint_filter_fn(dict(official), reference))
    torch.save({"state_dict": official}, tmp_path / "davit.pth")
    x = torch.randn(1, 3, 64, 96)
    model = create_model("davit_3m", checkpoint=tmp_path / "davit.pth").eval()
    expected = reference(x)
    assert relative_difference(model(x), expected) <= 1e-5
    assert relative_difference(fuse(model)(x), expected) <= 1e-4


def test_another_davits_file_is_told_in_one_line(tmp_path: Path) -> None:
    torch.save(create_model("davit_7m").state_dict(), tmp_path / "davit.pth")
    with pytest.raises(CheckpointError) as told:
        create_model("davit_3m", checkpoint=tmp_path / "davit.pth")
    assert "\n" not in str(told.value)
