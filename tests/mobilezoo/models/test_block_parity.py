"""Blocks of the official implementations, alone: equal outputs on their reference inputs."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from mobilezoo.models import care, focalnet, ravlt, smt
from mobilezoo.testing.references import Reference

DIM, HEADS = 64, 4


def _kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as 1×1 kernels."""
    return {key: value[:, :, None, None] if value.ndim == 2 else value for key, value in state.items()}


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Keys with the prefixes of `names` replaced."""
    found = {}
    for key, value in _kernels(state).items():
        prefix = next((p for p in names if key.startswith(p + ".")), "")
        found[names[prefix] + key.removeprefix(prefix) if prefix else key] = value
    return found


def focal_modulation(state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    block = focalnet.FocalModulation(DIM, levels=3, window=3)
    renamed = _renamed(state, {f"focal_layers.{i}.0": f"focal.{i}" for i in range(3)})
    for kind in ("weight", "bias"):
        parts = renamed.pop(f"f.{kind}").split([DIM, DIM, 4])
        names = ("query", "context", "gates")
        renamed |= {f"{name}.{kind}": part for name, part in zip(names, parts, strict=True)}
    return block, renamed


def rala(state: Mapping[str, Tensor], kind: type[ravlt.GatedAttention]) -> tuple[nn.Module, dict[str, Tensor]]:
    renamed = _renamed(state, {"qkvo": "qkvo.conv", "lepe": "local"})
    joint = {key: ravlt.halve_rotary_pairs(v, HEADS) if key.startswith("qkvo.") else v for key, v in renamed.items()}
    return kind(DIM, HEADS), joint


class CareMixer(nn.Module):
    """Memory and mixed features, joined."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.mix = care.TokenMixer(DIM - DIM // 4, head_dim)

    def forward(self, x: Tensor) -> Tensor:
        memory, features = x.split([DIM // 4, DIM - DIM // 4], dim=1)
        return torch.cat([memory, self.mix(features)], dim=1)


CARE_NAMES = {
    "dwconv1": "mix.near",
    "dwconv2": "mix.mid",
    "dwconvatt_1": "mix.far.tall",
    "dwconvatt_2": "mix.far.wide",
    "qk": "mix.far.qk.conv",
}


def smt_modulation(state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    names = {"v": "value", "s": "scales.pw", "proj0": "group.conv", "bn": "group.norm", "proj1": "merge"}
    names |= {f"local_conv_{i + 1}": f"scales.convs.{i}" for i in range(4)}
    return smt.Modulation(DIM), _renamed(state, names)


def smt_attention(state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    joined = {key: value for key, value in state.items() if not key.startswith(("q.", "kv."))}
    joined |= {f"qkv.{kind}": torch.cat([state[f"q.{kind}"], state[f"kv.{kind}"]]) for kind in ("weight", "bias")}
    return smt.attention(DIM, 8), _renamed(joined, {"qkv": "qkv.conv", "local_conv": "local"})


Built = tuple[nn.Module, dict[str, Tensor]]
BLOCKS: dict[str, Callable[[Mapping[str, Tensor]], Built]] = {
    "mod_focal_modulation_64x14x14": focal_modulation,
    "mod_rala_linear_64x14x14": lambda state: rala(state, ravlt.RankAugmentedAttention),
    "mod_rala_softmax_64x14x14": lambda state: rala(state, ravlt.SoftmaxAttention),
    "mod_care_mixer_att_64x14x14": lambda state: (CareMixer(4), _renamed(state, CARE_NAMES)),
    "mod_care_mixer_conv_64x14x14": lambda state: (CareMixer(0), _renamed(state, CARE_NAMES)),
    "mod_smt_sam_64x14x14": smt_modulation,
    "mod_smt_mhsa_64x14x14": smt_attention,
}
"""Reference → the block and its state dict from the official one."""


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_gives_the_official_output_also_fused_and_image_by_image(
    reference: Callable[[str], Reference], name: str
) -> None:
    official = reference(name)
    block, state = BLOCKS[name](official.state)
    block.load_state_dict(state, strict=True)
    block.eval()
    assert sum(p.numel() for p in block.parameters()) == official.facts["params"]
    forms = [block]
    if hasattr(block, "fuse"):
        forms.append(block.fuse())
    with torch.no_grad():
        for form in forms:
            assert official.difference(form(official.inputs)) <= 1e-4
            assert official.difference(torch.cat([form(image) for image in official.inputs.split(1)])) <= 1e-4
