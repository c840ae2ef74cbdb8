"""fuse() returns an equal network with nothing left to fold, and leaves the original alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame, LayerScale, LayerScale2d
from timm.utils import reparameterize_model
from torch import Tensor, nn

import mobilezoo
from mobilezoo.config import config_names
from mobilezoo.errors import MobilezooError
from mobilezoo.models.fuse import fuse, relative_difference
from mobilezoo.models.fuse.blocks import deploy_blocks
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.models.table import read_table

TIMM = {
    "mobilenetv2_100": 0,
    "efficientnet_lite0": 0,
    "mobilenetv3_small_050": 0,
    "mobilenetv4_conv_small": 0,
    "semnasnet_100": 0,
    "tf_mixnet_s": 0,
    "ghostnet_100": 0,
    "ghostnetv2_100": 0,
    "ghostnetv3_100": 0,
    "shvit_s1": 0,
    "repvit_m0_9": 0,
    "repghostnet_050": 0,
    "mobileone_s0": 0,
    "fastvit_t8": 0,
    "fastvit_sa12": 0,
    "levit_128s": 0,
    "edgenext_xx_small": 0,
    "starnet_s050": 1,  # the norm at the end of forward_features, whose output has to stay
    "resnetv2_18": 9,  # pre-activation: an activation stands between norm and convolution
}
"""Name → BatchNorms that no linear layer can take up."""

FUSED_PARAMS = {
    "shvit_s1": 6308660,
    "shvit_s2": 11453508,
    "shvit_s3": 14210010,
    "shvit_s4": 16546248,
    "mobilemamba_t2": 8809444,
    "mobilemamba_t4": 14141092,
    "mobilemamba_s6": 15000456,
    "mobilemamba_b1": 17079424,
    "mobilemamba_b2": 17079424,
    "mobilemamba_b4": 17079424,
}
"""Of the official deployment form."""


QUICK = {"mobilenetv3_small_050", "repghostnet_050", "starnet_s050", "fastvit_t8"}
QUICK |= {"mobilenetv2_ca_100", "mnasnet_small", "emo2_1m", "mobilemamba_t2"}
"""What the default tests fold; the others are slow, since each is a network of full size."""


def _param(name: str, *values: object) -> Any:
    return pytest.param(name, *values, marks=[] if name in QUICK else [pytest.mark.slow])


def build(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs)
    return randomize_norms(model, torch.Generator().manual_seed(1)).eval()


def images(model: nn.Module, *size: int, batch: int = 2) -> Tensor:
    shape = size or model.pretrained_cfg["input_size"][1:]
    return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(2))


def batch_norms(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if "BatchNorm" in type(m).__name__]


def size_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def assert_fuses(model: nn.Module, x: Tensor, left: int = 0, tolerance: float = 1e-4) -> nn.Module:
    before, state = model(x), copy.deepcopy(model.state_dict())
    fused = fuse(model)
    difference = relative_difference(fused(x), before)
    if difference > tolerance:  # some networks' own rounding is larger than that
        noise = relative_difference(before, copy.deepcopy(model).double()(x.double()))
        assert difference <= 3 * noise < 1e-3
    assert len(batch_norms(fused)) == left, batch_norms(fused)
    assert not fused.training
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[k], after[k]) for k in state)
    assert relative_difference(model(x), before) == 0.0
    return fused


@pytest.mark.parametrize("name", [_param(name) for name in TIMM])
def test_timm_networks_stay_equal_and_lose_their_norms(name: str) -> None:
    model = build(name)
    fused = assert_fuses(model, images(model, batch=1), TIMM[name])
    assert size_of(fused) <= size_of(model)


@pytest.mark.slow
def test_ghostnetv3_blocks_have_the_official_parameter_count_before_the_other_norms_go() -> None:
    model = timm.create_model("ghostnetv3_050").eval()
    network = copy.deepcopy(model)
    deploy_blocks(network)
    assert size_of(network) == 2853176
    assert size_of(fuse(model)) < 2853176


@pytest.mark.parametrize("name", [_param("ghostnetv3_050"), _param("fastvit_t8"), _param("mobilenetv3_small_050")])
def test_fusing_twice_changes_nothing(name: str) -> None:
    once = fuse(build(name))
    twice = fuse(once)
    assert repr(twice) == repr(once)
    assert list(once.state_dict()) == list(twice.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", [_param("shvit_s1"), _param("ghostnetv2_100"), _param("mobilenetv3_small_050")])
@torch.no_grad()
def test_the_result_is_still_a_timm_model(name: str) -> None:
    model = build(name, num_classes=7)
    fused = fuse(model)
    x = images(model, 128, 160)
    features = fused.forward_features(x)
    assert relative_difference(features, model.forward_features(x)) <= 1e-4
    assert relative_difference(fused.forward_head(features), model(x)) <= 1e-4
    assert fused.num_classes == 7
    assert fused.pretrained_cfg == model.pretrained_cfg
    again = fuse(build(name, num_classes=7))
    again.load_state_dict(fused.state_dict())
    fused.reset_classifier(3)
    assert fused(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        _param("mobilenetv2_100", 0),
        _param("shvit_s1", 0),
        _param("mobilenetv3_small_050", 0),
        _param("ghostnet_050", 1),  # the stem's convolution is itself the first feature map, its norm comes after
    ],
)
@pytest.mark.parametrize("size", [(224, 224), (193, 161)])
def test_feature_pyramids_stay_equal(name: str, left: int, size: tuple[int, int]) -> None:
    model = build(name, features_only=True)
    fused = assert_fuses(model, images(model, *size, batch=1), left)
    assert fused.feature_info.channels() == model.feature_info.channels()


def test_features_read_by_hooks_stay_equal() -> None:
    model = build("resnet18", features_only=True, feature_cls="hook")
    assert_fuses(model, images(model, 96, 96))


def test_the_result_exports() -> None:
    model = build("mobilenetv3_small_050")
    x = images(model, 64, 64, batch=1)
    program = torch.export.export(fuse(model), (x,))
    targets = {str(node.target) for node in program.graph.nodes}
    assert not any("batch_norm" in target for target in targets)
    with torch.no_grad():
        assert relative_difference(program.module()(x), model(x)) <= 1e-4


def test_in_float64_nothing_but_rounding_differs() -> None:
    model = build("mobilenetv3_small_050").double()
    assert_fuses(model, images(model, 64, 64, batch=1).double(), tolerance=1e-10)


def test_other_input_channels_are_found() -> None:
    model = build("mobilenetv3_small_050", in_chans=5)
    x = torch.randn(1, 5, 64, 64)
    with torch.no_grad():
        assert relative_difference(fuse(model)(x), model(x)) <= 1e-4


def _smallest() -> set[str]:
    """The variant with the fewest operations of every family."""
    rows = sorted(read_table(), key=lambda row: -row["macs"])
    return set({row["family"]: row["name"] for row in rows}.values())


ZOO = sorted({*_smallest(), *FUSED_PARAMS, *(QUICK & set(config_names("models")))})


@pytest.mark.parametrize("name", [_param(name) for name in ZOO])
def test_a_network_of_every_family_loses_all_its_norms(name: str) -> None:
    torch.manual_seed(0)
    model = randomize_norms(mobilezoo.create_model(name), torch.Generator().manual_seed(1)).eval()
    # Behind halo attention a norm stays: the padding takes part in the softmax, so its shift is none of the values'.
    left = sum(part.endswith("post_attn") for part in batch_norms(model))
    fused = assert_fuses(model, images(model, batch=1), left)
    if name in FUSED_PARAMS:
        assert size_of(fused) == FUSED_PARAMS[name]


OTHER_SIZES: list[Any] = [("cas_vit_xs_dist", (96, 96), reparameterize_model)]
OTHER_SIZES += [("emo2_1m", size, reparameterize_model) for size in ((97, 81), (64, 64))]
OTHER_SIZES += [pytest.param("mobilemamba_t2", size, fuse, marks=pytest.mark.slow) for size in ((97, 81), (64, 64))]
"""Network, size of its images, and what folds it: timm's function calls our blocks' `fuse` alone."""


@pytest.mark.parametrize(("name", "size", "fold"), OTHER_SIZES)
@torch.no_grad()
def test_our_blocks_fold_at_other_sizes_also_twice(
    name: str, size: tuple[int, int], fold: Callable[[nn.Module], nn.Module]
) -> None:
    torch.manual_seed(0)
    model = randomize_norms(mobilezoo.create_model(name), torch.Generator().manual_seed(1)).eval()
    x = images(model, *size)
    before = model(x)
    fused = fold(fold(model))
    assert relative_difference(fused(x), before) <= 1e-4
    assert torch.equal(model(x), before)
    assert not batch_norms(fused)
    assert not any("gamma" in key for key, _ in fused.named_parameters())


# ---- single patterns -------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Layers with a forward pass given as a function of (net, x)."""

    def __init__(self, forward: object, **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)
        randomize_norms(self, torch.Generator().manual_seed(3)).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)  # type: ignore[operator]


def check(net: nn.Module, x: Tensor, left: int, tolerance: float = 1e-5) -> nn.Module:
    fused = fuse(net, x)
    with torch.no_grad():
        assert relative_difference(fused(x), net(x)) <= tolerance
    assert len(batch_norms(fused)) == left
    return fused


X = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.Conv2d(8, 16, 3, stride=2, groups=4),
        Conv2dSame(8, 12, 3, stride=2, bias=False),
        nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2),
    ],
)
def test_a_norm_after_a_convolution_folds(conv: nn.Module) -> None:
    check(Net(lambda n, x: n.norm(n.conv(x)), conv=conv, norm=nn.BatchNorm2d(conv.out_channels)), X, 0)


@pytest.mark.parametrize(
    ("conv", "left"),
    [
        (nn.Conv2d(8, 12, 1, bias=False), 0),
        (nn.Conv2d(8, 16, 3, groups=4), 0),
        (nn.Conv2d(8, 12, 3, padding=1), 1),
        (nn.Conv2d(8, 12, 1, padding=1), 1),
        (nn.Conv2d(8, 12, 3, padding="same"), 1),
        (nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"), 0),
        (Conv2dSame(8, 12, 3), 1),
        (Conv2dSame(8, 12, 1, stride=2), 0),
    ],
)
def test_a_norm_before_a_convolution_folds_unless_zeros_are_padded_in(conv: nn.Module, left: int) -> None:
    check(Net(lambda n, x: n.conv(n.norm(x)), conv=conv, norm=nn.BatchNorm2d(8)), X, left)


def test_the_activation_of_a_folded_norm_stays() -> None:
    net = Net(lambda n, x: n.norm(n.conv(x)), conv=nn.Conv2d(8, 4, 1), norm=BatchNormAct2d(4, act_layer=nn.SiLU))
    assert isinstance(check(net, X, 0).norm, nn.SiLU)


def test_a_tensor_read_twice_is_not_folded() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.conv(x)
        return net.norm(y).relu() + y

    check(Net(forward, conv=nn.Conv2d(8, 4, 1), norm=nn.BatchNorm2d(4)), X, 1)


def test_a_shared_layer_is_left_alone() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.norm(net.conv(net.conv(x)))

    check(Net(forward, conv=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8)), X, 1)


def test_a_weight_read_elsewhere_is_left_alone() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.norm(net.conv(x)) * net.conv.weight.sum()

    check(Net(forward, conv=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8)), X, 1)


def test_a_hooked_output_is_left_alone() -> None:
    net = Net(lambda n, x: n.norm(n.conv(x)), conv=nn.Conv2d(8, 4, 1), norm=nn.BatchNorm2d(4))
    net.conv.register_forward_hook(lambda *_: None)
    check(net, X, 1)


def test_a_norm_with_batch_statistics_is_left_alone() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    check(Net(lambda n, x: n.norm(n.conv(x)), conv=nn.Conv2d(8, 4, 1), norm=norm), X, 1)


def test_a_norm_after_concatenated_convolutions_folds_into_each() -> None:
    layers = {"a": nn.Conv2d(8, 4, 1), "b": nn.Conv2d(8, 3, 3, padding=1), "norm": nn.BatchNorm2d(7)}
    check(Net(lambda n, x: n.norm(torch.cat([n.a(x), n.b(x)], 1)), **layers), X, 0)


def test_a_norm_folds_through_reshapes_and_means() -> None:
    layers = {"norm": nn.BatchNorm2d(8), "head": nn.Linear(8, 5)}
    check(Net(lambda n, x: n.head(n.norm(x).flatten(2).transpose(1, 2)), **layers), X, 0)
    check(Net(lambda n, x: n.head(n.norm(x).mean((2, 3))), **layers), X, 0)
    check(Net(lambda n, x: n.head(n.norm(x).permute(0, 2, 3, 1)), **layers), X, 0)
    back = {"proj": nn.Linear(8, 5), "norm": nn.BatchNorm2d(5)}
    check(Net(lambda n, x: n.norm(n.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), **back), X, 0)
    mixed = {"proj": nn.Linear(7, 7), "norm": nn.BatchNorm2d(8)}
    check(Net(lambda n, x: n.norm(n.proj(x)), **mixed), X, 1)


def test_layer_scales_fold_into_the_projection() -> None:
    layers = {"proj": nn.Conv2d(8, 8, 3, padding=1), "ls": LayerScale2d(8), "drop": nn.Dropout(0.5)}
    fused = check(Net(lambda n, x: x + n.ls(n.drop(n.proj(x))), **layers), X, 0)
    assert isinstance(fused.ls, nn.Identity)
    assert isinstance(fused.drop, nn.Identity)
    tokens = {"proj": nn.Linear(7, 7), "ls": LayerScale(7, inplace=True)}
    assert isinstance(check(Net(lambda n, x: x + n.ls(n.proj(x)), **tokens), X, 0).ls, nn.Identity)


class Residual(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(branch(x) for branch in self.branches)


def conv_norm(kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(8))


@pytest.mark.parametrize(
    "branches",
    [(conv_norm(3, 8),), (conv_norm(7, 8), conv_norm(3, 8)), (conv_norm(3, 2), nn.BatchNorm2d(8)), (conv_norm(1, 1),)],
)
def test_residual_sums_of_convolutions_become_one(branches: tuple[nn.Module, ...]) -> None:
    net = Net(lambda n, x: n.block(x).relu(), block=Residual(*branches))
    assert isinstance(check(net, X, 0).block, nn.Conv2d)


def test_a_sum_that_would_cost_more_as_one_convolution_stays() -> None:
    net = Net(lambda n, x: n.block(x).relu(), block=Residual(conv_norm(7, 8), conv_norm(1, 1)))
    assert isinstance(check(net, X, 0).block, Residual)


def test_a_residual_with_something_else_inside_stays() -> None:
    layers = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()]
    net = Net(lambda n, x: n.block(x), block=Residual(nn.Sequential(*layers)))
    assert isinstance(check(net, X, 0).block, Residual)


def test_a_tiny_running_variance_folds_without_losing_digits() -> None:
    net = Net(lambda n, x: n.norm(n.conv(x)), conv=nn.Conv2d(8, 4, 1), norm=nn.BatchNorm2d(4))
    with torch.no_grad():
        y = net.conv(X)
        net.norm.running_mean.copy_(y.mean((0, 2, 3)))
        net.norm.running_var.fill_(1e-12)
    check(net, X, 0)


def test_frozen_weights_stay_frozen() -> None:
    net = Net(lambda n, x: n.norm(n.conv(x)), conv=nn.Conv2d(8, 4, 1, bias=False), norm=nn.BatchNorm2d(4))
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in fuse(net, X).parameters())


class Broken(nn.Module):
    """A block whose own deployment form is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + 1

    def fuse(self) -> nn.Module:
        return self.conv


def test_a_wrong_result_is_an_error() -> None:
    with pytest.raises(MobilezooError, match="changed its output"):
        fuse(nn.Sequential(Broken()), X)


def test_a_network_without_a_known_input_asks_for_one() -> None:
    with pytest.raises(MobilezooError, match="pass example="):
        fuse(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_an_input_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(MobilezooError, match="does not run on an input of 2x8x9x7") as caught:
        fuse(nn.Sequential(nn.Conv2d(3, 4, 1)), X)
    assert "\n" not in str(caught.value)
