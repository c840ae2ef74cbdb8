"""CAS-ViT: equal to the official networks, and a good timm citizen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mobilezoo.config import config_names
from mobilezoo.errors import ConfigError
from mobilezoo.models import cas_vit
from mobilezoo.models.registry import create_model, load_model_config
from mobilezoo.testing.references import Reference

VARIANTS = [name for name in config_names("models") if name.startswith("cas_vit_")]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return _lively(create_model("cas_vit_xs", num_classes=10))


def _lively(model: nn.Module) -> nn.Module:
    """Norms that are not the identity, so that a wrong fold or key shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


def test_a_two_head_file_gives_a_one_head_network_the_same_logits(reference: Callable[[str], Reference]) -> None:
    official = reference("rcvit_xs_distheads")
    model = create_model("cas_vit_xs").eval()
    model.load_state_dict(cas_vit.from_official(official.state, model), strict=True)
    with torch.no_grad():
        assert official.difference(model(official.inputs)) <= 1e-4


def test_every_official_variant_has_a_yaml_and_an_alias() -> None:
    aliases = {load_model_config(name).aliases[0] for name in VARIANTS}
    assert aliases == {f"rcvit_{size}{heads}" for size in ("xs", "s", "m", "t") for heads in ("", "_distheads")}


def test_both_heads_follow_the_arguments() -> None:
    x = torch.randn(2, 1, 64, 64)
    model = create_model("cas_vit_xs_dist", num_classes=0, in_chans=1).eval()
    assert model(x).shape == (2, 220)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert [fc.out_features for fc in model.get_classifier()] == [7, 7]
    model.set_distilled_training()
    assert [y.shape for y in model.train()(x)] == [(2, 7), (2, 7)]
    assert model.eval()(x).shape == (2, 7)


@pytest.mark.slow
def test_the_exported_graph_is_static_small_dimensional_and_equal(network: nn.Module) -> None:
    x = torch.randn(1, 3, 97, 65)
    program = torch.export.export(network, (x,))
    for node in (node for node in program.graph.nodes if node.op == "call_function"):
        value = node.meta.get("val")
        assert not isinstance(value, torch.Tensor) or value.dim() <= 4, node
        assert not any(word in str(node.target) for word in ("expand", "unfold", "slice", "sym_size")), node
    with torch.no_grad():
        assert torch.allclose(program.module()(x), network(x), atol=1e-5)


def test_weight_decay_spares_nothing_but_what_timm_spares(network: nn.Module) -> None:
    assert network.no_weight_decay() == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [48, 56, 112]}, "one value per stage, 4 as in depths"),
        ({"kernel": 4}, "an odd number"),
        ({"width": 3}, "did you mean"),
    ],
)
def test_a_wrong_config_is_named(change: dict[str, Any], message: str) -> None:
    data = load_model_config("cas_vit_xs").model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        cas_vit.Config.parse({**data, **change}, "mine.yaml")
