"""Blocks of the official implementations, alone: equal outputs on their reference inputs."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from timm.layers import EcaModule
from torch import Tensor, nn

from mobilezoo.layers.attention import create_attention
from mobilezoo.layers.halo_attention import HaloAttention
from mobilezoo.layers.neighborhood_attention import NeighborhoodAttention
from mobilezoo.models import focalnet, moh, ravlt, smt
from mobilezoo.models.probe import EfficientProbe
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


def halo(stride: int, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    part = create_attention("halo", DIM).get_submodule("mix")
    return part if stride == 1 else HaloAttention(DIM, stride=2, num_heads=8, block_size=7, halo_size=3), dict(state)


class CareMixer(nn.Module):
    """Memory and mixed features, joined."""

    def __init__(self, name: str) -> None:
        super().__init__()
        part = create_attention(name, DIM)
        self.mix = part.get_submodule("mix")

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
    return create_attention("smt_sam", DIM).get_submodule("mix"), _renamed(state, names)


def smt_attention(state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    joined = {key: value for key, value in state.items() if not key.startswith(("q.", "kv."))}
    joined |= {f"qkv.{kind}": torch.cat([state[f"q.{kind}"], state[f"kv.{kind}"]]) for kind in ("weight", "bias")}
    return smt.attention(DIM, 8), _renamed(joined, {"qkv": "qkv.conv", "local_conv": "local"})


def ela(name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    renamed = {"conv.weight": state["conv.weight"].unsqueeze(-1)}
    return create_attention(name, DIM), renamed | {f"norm.{kind}": state[f"gn.{kind}"] for kind in ("weight", "bias")}


def ulsam(name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    names = {"conv_dws": "dw", "bn_dws": "norm1", "conv_point": "point", "bn_point": "norm2"}
    parts = sorted({int(key.split(".")[1]) for key in state})
    found = {}
    for official, ours in names.items():
        for kind in {key.split(".")[3] for key in state if key.startswith(f"subspaces.0.{official}.")}:
            tensors = [state[f"subspaces.{i}.{official}.{kind}"] for i in parts]
            found[f"{ours}.{kind}"] = tensors[0] if kind == "num_batches_tracked" else torch.cat(tensors)
    return create_attention(name, DIM), found


def gaussian(name: str, layers: Mapping[str, str], state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    found = {}
    for official, ours in layers.items():
        heads = sorted({int(k.removeprefix(official).split(".")[1]) for k in state if k.startswith(official)})
        for kind, name_ in (("mean_offsets", "offsets"), ("c", "widths")):
            found[ours + name_] = torch.stack([state[f"{official}attention_heads.{i}.{kind}"] for i in heads])
    return create_attention(name, DIM), found


class Probe(nn.Module):
    """Efficient probing's pooling."""

    def __init__(self, reduction: int) -> None:
        super().__init__()
        probe = EfficientProbe(DIM, 8, 1, reduction)
        self.probe, self.queries, self.values = [probe], probe.queries, probe.values

    def forward(self, x: Tensor) -> Tensor:
        return self.probe[0].pool(x)


def probing(reduction: int, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    queries = state["cls_token"][0, :, :, None, None] * DIM**-0.5
    return Probe(reduction), {"queries.weight": queries, "values.weight": state["v.weight"][:, :, None, None]}


def eca(kernel: int, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    return EcaModule(kernel_size=kernel), dict(state)


def neighborhood(dilation: int, state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    renamed = _renamed(state, {"qkv": "qkv.conv"})
    return NeighborhoodAttention(DIM, HEADS, 7, dilation), renamed | {"table": renamed.pop("rpb")}


class Tokens(nn.Module):
    """A block of maps whose official form gives tokens [b, n, c]."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).flatten(2).transpose(1, 2)


def mixture_of_heads(state: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    block = Tokens(create_attention("moh", DIM).get_submodule("mix"))
    parts = [part for key, value in state.items() for part in moh.attention_parts(key, value)]
    return block, {f"block.{name}": value for name, value in parts}


Built = tuple[nn.Module, dict[str, Tensor]]
BLOCKS: dict[str, Callable[[Mapping[str, Tensor]], Built]] = {
    "mod_focal_modulation_64x14x14": focal_modulation,
    "mod_rala_linear_64x14x14": lambda state: rala(state, ravlt.RankAugmentedAttention),
    "mod_rala_softmax_64x14x14": lambda state: rala(state, ravlt.SoftmaxAttention),
    "mod_care_mixer_att_64x14x14": lambda state: (CareMixer("care"), _renamed(state, CARE_NAMES)),
    "mod_care_mixer_conv_64x14x14": lambda state: (CareMixer("care_stripes"), _renamed(state, CARE_NAMES)),
    "mod_na_k7_d1_64x14x14": partial(neighborhood, 1),
    "mod_na_k7_d2_64x14x14": partial(neighborhood, 2),
    "mod_halo_64x14x14": partial(halo, 1),
    "mod_halo_s2_64x14x14": partial(halo, 2),
    "mod_moh_attention_64x14x14": mixture_of_heads,
    "mod_smt_sam_64x14x14": smt_modulation,
    "mod_smt_mhsa_64x14x14": smt_attention,
    **{f"mod_{name}_64x14x14": partial(ela, name) for name in ("ela_t", "ela_b", "ela_s", "ela_l")},
    **{f"mod_{name}_64x14x14": partial(ulsam, name) for name in ("ulsam_g4", "ulsam_g8")},
    "mod_gaam_mh_64x14x14": partial(gaussian, "gaam", {"": ""}),
    "mod_gaam_block_64x14x14": partial(gaussian, "gaam_block", {f"layers.{i}.": f"layers.{i}." for i in range(2)}),
    "mod_efficientprobing_d1_64x14x14": partial(probing, 1),
    "mod_efficientprobing_d2_64x14x14": partial(probing, 2),
    "mod_eca_k3_64x14x14": partial(eca, 3),
    "mod_eca_k5_64x14x14": partial(eca, 5),
    "mod_coordatt_64x14x14": lambda state: (create_attention("coord", DIM), dict(state)),
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
