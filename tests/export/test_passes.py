"""Every graph pass keeps what a network computes, and really changes what it is for."""

import importlib
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.errors import ExportError
from mobilezoo_export.passes import run_passes
from mobilezoo_export.passes.graph import aten, calls, constant, trace
from mobilezoo_export.passes.taps import dealt


class Noops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, 0:, :].contiguous() + 1.0
        return F.dropout(F.pad(x, (0, 0)).reshape(x.shape), training=False)[:, :100]


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.bn2, self.fc, self.bn3 = nn.BatchNorm2d(8), nn.Linear(8, 4), nn.BatchNorm1d(4)
        generator = torch.Generator().manual_seed(0)
        for norm in (self.bn1, self.bn2, self.bn3):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn2(F.relu(self.bn1(self.conv(x))))
        return self.bn3(self.fc(x.mean((2, 3))))


class Upsample(nn.Module):
    def __init__(self, **how: object) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, mode="nearest", **self.how)


class Expands(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.mean((2, 3), keepdim=True).expand_as(x)


def rewritten(model: nn.Module, x: torch.Tensor, name: str) -> tuple[torch.fx.GraphModule, int]:
    graph = trace(model, x)
    changed = run_passes(graph, x, [name])[name]
    torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
    return graph, changed


def test_shapes_are_computed_again_only_where_a_pass_changed_something(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = trace(Expands(), torch.randn(1, 3, 8, 8)), torch.randn(1, 3, 8, 8)
    seen: list[torch.fx.GraphModule] = []
    monkeypatch.setattr("mobilezoo_export.passes.refresh", lambda model, example: seen.append(model))
    assert run_passes(graph, x, ["batchnorm", "expand", "nearest"]) == {"batchnorm": 0, "expand": 1, "nearest": 0}
    assert len(seen) == 2  # before the first, and after `expand`


def test_noop_removes_aliases_full_slices_and_dropout() -> None:
    graph, changed = rewritten(Noops(), torch.randn(1, 3, 6, 6), "noop")
    assert changed >= 3
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [aten.add.Tensor]


def test_batchnorm_is_folded_into_conv_and_linear_and_left_as_affine_elsewhere() -> None:
    graph, changed = rewritten(Norms(), torch.randn(2, 3, 8, 8), "batchnorm")
    assert changed == 3
    assert not list(calls(graph, aten._native_batch_norm_legit_no_training.default))
    assert len(list(calls(graph, aten.mul.Tensor))) == 1


def test_batchnorm_of_a_shared_convolution_is_not_folded_into_it() -> None:
    class Shared(Norms):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y + self.bn1(y)

    graph, _ = rewritten(Shared(), torch.randn(1, 3, 8, 8), "batchnorm")
    assert len(list(calls(graph, aten.mul.Tensor))) == 1


@pytest.mark.parametrize(("before", "after"), [((3, 3), (7, 7)), ((7, 5), (16, 9)), ((4, 3), (8, 7)), ((5, 5), (3, 3))])
def test_fractional_nearest_upsampling_is_written_out_exactly(before: tuple[int, int], after: tuple[int, int]) -> None:
    graph, changed = rewritten(Upsample(size=after), torch.randn(1, 2, *before), "nearest")
    assert changed == 1
    assert not list(calls(graph, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default))


def test_nearest_upsampling_by_a_given_factor_uses_that_factor() -> None:
    assert rewritten(Upsample(scale_factor=2.3), torch.randn(1, 2, 7, 9), "nearest")[1] == 1


def test_whole_factors_are_left_to_the_runtime() -> None:
    assert rewritten(Upsample(scale_factor=2), torch.randn(1, 2, 7, 7), "nearest")[1] == 0


def test_expand_before_arithmetic_is_dropped() -> None:
    graph, changed = rewritten(Expands(), torch.randn(1, 3, 4, 4), "expand")
    assert changed == 1
    assert not list(calls(graph, aten.expand.default))


class Pyramid(nn.Module):
    """Maps joined as EfficientDet joins them: stacked, weighted or not, and summed."""

    def __init__(self, axis: int, reduce: str, **how: object) -> None:
        super().__init__()
        self.axis, self.reduce, self.how = axis, reduce, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stacked = torch.stack([x, x * 0.5, x.relu()], self.axis)
        return getattr(stacked, self.reduce)(self.axis, **self.how)


@pytest.mark.parametrize(("axis", "reduce"), [(-1, "sum"), (0, "sum"), (2, "mean")])
def test_sums_of_stacked_maps_are_additions(axis: int, reduce: str) -> None:
    graph, changed = rewritten(Pyramid(axis, reduce), torch.randn(2, 3, 4, 5), "stacked_sums")
    assert changed == 1
    assert len(list(calls(graph, aten.add.Tensor))) == 2
    assert not list(calls(graph, aten.stack.default, aten.sum.dim_IntList, aten.mean.dim))


class Joined(nn.Module):
    """Maps joined along new axes, one by one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.unsqueeze(1), (x + 1).unsqueeze(1)], 1).sum(1)


def test_sums_of_joined_new_axes_are_additions() -> None:
    assert rewritten(Joined(), torch.randn(1, 3, 4, 4), "stacked_sums")[1] == 1


class OtherSums(nn.Module):
    """Sums that are no additions of equal maps: of joined channels, of another axis, of several, of integers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pair, whole = torch.stack([x, x + 1], 1), x.round().long()
        channels = torch.cat([x, x * 2], 1).sum(1)
        integers = torch.stack([whole, whole], 1).sum(1)
        return channels[:, None] + pair.sum(2) + pair.sum((1, 2))[:, None] + integers


def test_other_sums_stay() -> None:
    assert rewritten(OtherSums(), torch.randn(1, 2, 4, 4), "stacked_sums")[1] == 0
    assert rewritten(Pyramid(1, "sum", keepdim=True), torch.randn(1, 3, 4, 4), "stacked_sums")[1] == 0


@pytest.mark.parametrize(
    ("size", "how", "kernel"),
    [
        ((2, 2), {"padding": 3}, (3, 3)),
        ((1, 2), {"padding": 3}, (1, 3)),
        ((3, 3), {"padding": 3, "stride": 2}, (5, 5)),
        ((3, 3), {"padding": 6, "dilation": 2}, (3, 3)),
    ],
)
def test_depthwise_windows_lose_taps_that_lie_in_the_padding(
    size: tuple[int, int], how: dict[str, int], kernel: tuple[int, int]
) -> None:
    conv = nn.Conv2d(6, 6, 7, groups=6, **how).eval()
    graph, changed = rewritten(conv, torch.randn(1, 6, *size), "taps")
    (node,) = calls(graph, aten.conv2d.default)
    weights = constant(graph, node.args[1])
    assert changed == 1
    assert weights is not None
    assert tuple(weights.shape[2:]) == kernel


def test_control_flow_on_values_is_one_clear_line() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="Branches cannot be traced"):
        trace(Branches(), torch.randn(1, 3, 4, 4))


def test_every_pass_has_a_docstring() -> None:
    from mobilezoo_export.passes import COMMON

    for name in COMMON:
        assert importlib.import_module(f"mobilezoo_export.passes.{name}").__doc__


class Splits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.split([1, 2], 1)
        c, d = b.chunk(2, -1)
        return a[..., : c.shape[-1]] * c + d


class Groups(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, 4)
        self.norm.weight.data, self.norm.bias.data = torch.rand(4) + 0.5, torch.rand(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class Attends(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x * 2, x + 1, attn_mask=x @ x.transpose(-1, -2))


def test_splits_become_slices() -> None:
    graph, changed = rewritten(Splits(), torch.randn(1, 3, 4, 6), "splits")
    assert changed == 2
    assert not [node for node in graph.graph.nodes if "split" in str(node.target) or "chunk" in str(node.target)]


def test_group_norm_with_one_group_is_written_out_and_others_are_left() -> None:
    graph, changed = rewritten(Groups(1), torch.randn(2, 4, 5, 6) * 3 + 1, "groupnorm")
    assert changed == 1
    assert not list(calls(graph, aten.group_norm.default))
    # XNNPACK would merge square and mean into an operator that it lacks in half precision
    assert not [node for node in calls(graph, aten.mean.dim) if node.args[0].target is aten.mul.Tensor]
    assert rewritten(Groups(2), torch.randn(2, 4, 5, 6), "groupnorm")[1] == 0


def test_attention_is_two_matrix_products() -> None:
    graph, changed = rewritten(Attends(), torch.randn(1, 2, 5, 3), "attention")
    assert changed == 1
    assert not list(calls(graph, aten.scaled_dot_product_attention.default))


@pytest.mark.parametrize("name", ["upsample", "upsample_last"])
@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 1)])
def test_whole_factor_upsampling_is_concatenation_in_at_most_four_axes(name: str, factors: tuple[int, int]) -> None:
    graph, changed = rewritten(Upsample(scale_factor=factors), torch.randn(2, 3, 4, 5), name)
    assert changed == 1
    assert all(node.meta["val"].dim() <= 4 for node in graph.graph.nodes if node.op == "call_function")
    assert not list(calls(graph, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default))


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 3, 4, 5)])
def test_matrix_products_become_bmm(shape: tuple[int, ...]) -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x.transpose(-1, -2)

    graph, changed = rewritten(Product(), torch.randn(shape), "products")
    assert changed == 1
    assert not list(calls(graph, aten.matmul.default))


def test_one_spelling_for_views_transposes_unbinding_and_fused_products() -> None:
    class Spellings(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b, c = x.transpose(2, 3).unbind(1)
            return torch.addcmul(a, b, c, value=0.5).relu().reshape(-1)

    graph, changed = rewritten(Spellings(), torch.randn(1, 3, 4, 5), "canonical")
    assert changed >= 3
    assert not list(calls(graph, aten.addcmul.default, aten.unbind.int, aten.view.default, aten.transpose.int))


def test_means_keep_their_axes() -> None:
    class Pools(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) + x.mean(dim=(2, 3), keepdim=True).flatten(1)

    graph, changed = rewritten(Pools(), torch.randn(2, 3, 4, 5), "canonical")
    assert changed >= 1
    assert all(node.args[2] is True for node in calls(graph, aten.mean.dim))


@pytest.mark.parametrize("pieces", [4, 5, 7, 17])
@pytest.mark.parametrize("axis", [2, 3])
def test_wide_concatenations_become_trees(pieces: int, axis: int) -> None:
    class Joins(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :, i : i + 1] * (i + 1.0) for i in range(pieces)], dim=axis)

    graph, changed = rewritten(Joins(), torch.randn(1, 3, 17, 5), "concat")
    assert changed == (pieces > 4)
    assert max(len(node.args[0]) for node in calls(graph, aten.cat.default)) <= 4
    assert max(node.meta["val"].dim() for node in graph.graph.nodes if node.op == "call_function") == 4


def test_selections_become_slices() -> None:
    class Selects(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1).select(1, -1) * (x * 2).select(1, 0)

    graph, changed = rewritten(Selects(), torch.randn(2, 3, 4, 5), "splits")
    assert changed == 2
    assert not list(calls(graph, aten.select.int))


class LayerNorms(nn.Module):
    """Over the channels of an image, between two permutes, and over the features of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.tokens = nn.LayerNorm(6), nn.LayerNorm(6, bias=False)
        self.image.weight.data, self.image.bias.data = torch.rand(6) + 0.5, torch.rand(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.image((x * 2 + 1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.tokens(x.flatten(2).permute(0, 2, 1))


def test_layer_norms_are_products_with_equal_weights_and_need_no_permutes_around_images() -> None:
    graph, changed = rewritten(LayerNorms(), torch.randn(2, 6, 4, 5), "layernorm")
    assert changed == 2
    assert not list(calls(graph, aten.layer_norm.default))
    assert len(list(calls(graph, aten.permute.default))) == 1


class Pools(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        even = F.avg_pool2d(x, 2) + F.avg_pool2d(x, 3, stride=2, padding=1)
        odd = F.avg_pool2d(x, (2, 3), stride=1) + F.avg_pool2d(x, (2, 3), stride=1, divisor_override=5)
        kept = F.avg_pool2d(x, 3, padding=1, count_include_pad=False), F.avg_pool2d(x, 3, ceil_mode=True)
        return torch.cat([piece.flatten(1) for piece in (even, odd, *kept, F.avg_pool2d(x, 8))], 1)


def test_small_average_pools_are_depthwise_convolutions() -> None:
    graph, changed = rewritten(Pools(), torch.randn(2, 3, 8, 8), "pools")
    assert changed == 4
    assert len(list(calls(graph, aten.avg_pool2d.default))) == 3


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (4, 14)])
def test_adaptive_pools_are_windows_or_products_with_means(size: tuple[int, int]) -> None:
    pool = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(size))
    graph, changed = rewritten(pool, torch.randn(2, 3, 14, 28), "pools")
    assert changed >= 1
    assert not list(calls(graph, aten.adaptive_avg_pool2d.default))


def test_a_global_adaptive_pool_stays() -> None:
    _, changed = rewritten(nn.AdaptiveAvgPool2d(1), torch.randn(2, 3, 14, 28), "pools")
    assert changed == 0


class Swaps(nn.Module):
    def __init__(self, shape: tuple[int, ...], moves: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.moves = shape, moves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1).reshape(self.shape).permute(self.moves) * 2


@pytest.mark.parametrize(
    ("shape", "moves", "axes"),
    [
        ((2, 4, 7, 5, 21), (0, 1, 3, 2, 4), 4),  # heads
        ((2, 3, 2, 3, 1, 30), (0, 1, 3, 4, 2, 5), 4),  # windows; an axis of one is in nobody's way
        ((2, 3, 4, 5, 6), (3, 4, 0, 1, 2), 2),
        ((2, 3, 1, 5, 6), (0, 2, 1, 3, 4), None),  # nothing moves
        ((2, 3, 4, 5, 6), (4, 3, 2, 1, 0), 5),  # stays as it is
        ((4, 5, 6, 3), (0, 2, 1, 3), 4),
    ],
)
def test_permutations_of_many_axes_are_taken_in_four(
    shape: tuple[int, ...], moves: tuple[int, ...], axes: int | None
) -> None:
    graph, changed = rewritten(Swaps(shape, moves), torch.randn(shape), "swaps")
    assert changed == (len(shape) > 4 and axes != 5)
    found = [node.meta["val"].dim() for node in calls(graph, aten.permute.default)]
    assert found == ([] if axes is None else [axes])


def test_a_swap_of_the_last_axes_that_a_product_merges_stays() -> None:
    class IntoProduct(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, (x + 1).permute(0, 1, 2, 4, 3))

    assert rewritten(IntoProduct(), torch.randn(2, 3, 2, 5, 4), "swaps")[1] == 0


@pytest.mark.parametrize(
    ("shape", "axis", "changes"), [((1, 2, 3, 4), -1, 1), ((1, 2, 3, 4), 1, 0), ((2, 3, 4), -1, 0)]
)
def test_softmax_of_a_map_is_taken_in_three_dimensions(shape: tuple[int, ...], axis: int, changes: int) -> None:
    graph, changed = rewritten(nn.Sequential(nn.Softmax(axis)), torch.randn(shape), "softmax")
    assert changed == changes
    assert all(len(node.meta["val"].shape) == 3 for node in calls(graph, aten.softmax.int)) or not changes


def test_hard_sigmoid_is_a_clipped_line() -> None:
    graph, changed = rewritten(
        nn.Sequential(nn.Hardsigmoid()), torch.linspace(-5, 5, 60).reshape(1, 3, 4, 5), "hardsigmoid"
    )
    assert changed == 1
    assert not list(calls(graph, aten.hardsigmoid.default))


class Positions(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(x.shape[2], dtype=torch.float32)[:, None] / 3
        noise = torch.rand(1) * 0
        return x * torch.cat([rows.sin(), rows.cos()], 1).sum(1, keepdim=True) + x.mean() + noise


def test_what_does_not_depend_on_the_image_is_computed_once() -> None:
    graph, changed = rewritten(Positions(), torch.randn(1, 3, 4, 5), "constants")
    assert changed == 1
    assert not list(calls(graph, aten.sin.default, aten.cat.default, aten.arange.default))
    assert list(calls(graph, aten.rand.default))


def test_large_values_are_held_on_the_way_and_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.column, self.row = nn.Parameter(torch.randn(1, 1, 8, 1)), nn.Parameter(torch.randn(1, 1, 1, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            small = (self.column * self.row).exp().sum((2, 3), keepdim=True)  # 64 elements on the way to one
            return x * small + (self.column.exp() + self.row)

    monkeypatch.setattr("mobilezoo_export.passes.constants.LARGEST", 32)
    graph, changed = rewritten(Tables(), torch.randn(1, 3, 8, 8), "constants")
    assert changed == 2  # the sum, and the exponential
    assert len(list(calls(graph, aten.exp.default, aten.sum.dim_IntList))) == 0
    assert len(list(calls(graph, aten.add.Tensor))) == 2


def test_means_along_one_side_of_a_map_are_pools() -> None:
    class Sides(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (
                x.mean(2, keepdim=True)
                + x.mean(-1, keepdim=True)
                + x.mean((2, 3), keepdim=True)
                + x.mean(1, keepdim=True)
            )

    graph, changed = rewritten(Sides(), torch.randn(2, 3, 4, 5), "means")
    assert changed == 2
    assert len(list(calls(graph, aten.mean.dim))) == 2


class Softplus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))


def test_log1p_is_an_addition_and_a_logarithm() -> None:
    graph, changed = rewritten(Softplus(), 4 * torch.randn(2, 30), "logs")
    assert changed == 1
    assert not list(calls(graph, aten.log1p.default))


class Cast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.float()) * 2


def test_a_float16_copy_of_a_graph_with_casts_runs() -> None:
    graph, changed = rewritten(Cast(), torch.randn(2, 3), "noop")
    assert changed
    half = graph.half()(torch.ones(2, 3, dtype=torch.float16))
    assert torch.equal(half, torch.full((2, 3), 2.0, dtype=torch.float16))


class Elus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.elu(x), F.elu(x, 0.3), F.selu(x), F.celu(x, 2.0), F.elu(x) + 1.0, F.elu(x) + 2.0])


def test_elu_needs_neither_comparison_nor_selection_and_loses_an_added_one() -> None:
    x = torch.cat([torch.linspace(-30, 30, 121), torch.tensor([-6e4, -1e-6, 0.0, 1e-6, 6e4])])
    graph, changed = rewritten(Elus(), x, "elu")
    assert changed == 6
    assert not list(calls(graph, aten.elu.default, aten.celu.default, aten.selu.default))
    assert len(list(calls(graph, aten.sub.Tensor))) == 5  # none where 1 is added


def test_a_scaled_one_behind_an_elu_stays() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.add(F.elu(x), 1.0, alpha=2.0)

    x = torch.linspace(-3, 3, 7)
    graph, _ = rewritten(Scaled(), x, "elu")
    torch.testing.assert_close(graph(x), F.elu(x) + 2.0)


def test_elu_stays_finite_and_exact_over_the_range_of_half_precision() -> None:
    x = torch.tensor([-6e4, -20.0, -9.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 6e4])

    class Positive(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.elu(x) + 1.0

    graph, _ = rewritten(Positive(), x, "elu")
    half, exact = graph.half()(x.half()).double(), F.elu(x.half().double()) + 1.0
    torch.testing.assert_close(half, exact, rtol=1e-3, atol=1e-4)


class Depthwise(nn.Module):
    def __init__(self, *kernel: int, channels: int = 6, **how: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, groups=channels, **how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x + 1)


@pytest.mark.parametrize(
    ("kernel", "how", "pieces"),
    [
        ((7, 7), {"padding": 3}, 3),
        ((7, 7), {"padding": 3, "stride": 2, "bias": False}, 3),
        ((7, 7), {"padding": 6, "dilation": 2}, 3),
        ((9, 9), {"padding": 4}, 4),
        ((3, 11), {"padding": (1, 5)}, 2),
        ((6, 6), {"padding": 3}, 2),
        ((5, 5), {"padding": 2}, 1),  # the kernels have these
        ((1, 21), {"padding": (0, 10)}, 1),
        ((7, 7), {}, 1),  # no padding to keep even
        ((7, 7), {"padding": 1}, 1),
    ],
)
def test_depthwise_windows_of_many_taps_are_sums_of_kernels_of_25(
    kernel: tuple[int, int], how: dict[str, Any], pieces: int
) -> None:
    graph, changed = rewritten(Depthwise(*kernel, **how), torch.randn(2, 6, 14, 15), "taps")
    assert changed == (pieces > 1)
    convolutions = list(calls(graph, aten.conv2d.default))
    assert len(convolutions) == pieces
    assert len(list(calls(graph, aten.add.Tensor))) == pieces  # one is the module's own
    if changed:
        assert all(prod(node.args[1].meta["val"].shape[2:]) <= 25 for node in convolutions)


def test_dense_and_grouped_windows_stay_whole() -> None:
    for groups in (1, 3):
        conv = nn.Sequential(nn.Conv2d(6, 6, 7, padding=3, groups=groups))
        assert rewritten(conv, torch.randn(1, 6, 9, 9), "taps")[1] == 0


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (11, 13), (2, 17), (25, 3)])
def test_pieces_hold_every_tap_of_a_window_once(size: tuple[int, int]) -> None:
    held = torch.zeros(size)
    for (row, down, rows), (column, across, columns) in dealt(*size):
        held[row : row + down * rows : down, column : column + across * columns : across] += 1
        assert 2 * row + down * (rows - 1) == size[0] - 1
        assert 2 * column + across * (columns - 1) == size[1] - 1
    assert held.eq(1).all()


class Strided(nn.Module):
    """A convolution of a map that is stored channels last, as the layout pass leaves it."""

    def __init__(self, channels: int, kernel: int, groups: int, **how: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, kernel, groups=groups, **how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv((x + 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("kernel", "groups", "how", "window", "pads"),
    [
        (3, 6, {"stride": 2, "padding": 1}, 4, 0),  # a depthwise window grows
        (3, 6, {"stride": 2, "padding": 2, "dilation": 2}, 3, 1),
        (5, 6, {"stride": 2, "padding": 2}, 5, 1),  # no kernel has 36 taps
        (3, 1, {"stride": 2, "padding": 1}, 3, 1),
        (3, 2, {"stride": 2, "padding": 1, "bias": False}, 3, 1),
        (7, 1, {"stride": 4, "padding": 3}, 7, 1),
        (3, 6, {"padding": 1}, 3, 0),  # "same" already
        (2, 1, {"stride": 2}, 2, 0),
    ],
)
def test_strided_convolutions_need_no_pixelwise_padding_in_half_precision(
    kernel: int, groups: int, how: dict[str, Any], window: int, pads: int
) -> None:
    graph, changed = rewritten(Strided(6, kernel, groups, **how), torch.randn(2, 12, 16, 6), "half_pads")
    assert changed == (window != kernel or pads)
    (convolution,) = calls(graph, aten.conv2d.default)
    assert convolution.args[1].meta["val"].shape[2:] == (window, window)
    padded = list(calls(graph, aten.constant_pad_nd.default))
    assert len(padded) == pads
    assert all(node.meta["val"].dim() == 3 for node in padded)


def test_odd_maps_have_the_same_padding_in_half_precision() -> None:
    strided = Strided(6, 3, 6, stride=2, padding=1)
    assert rewritten(strided, torch.randn(1, 7, 9, 6), "half_pads")[1] == 0


class Padded(nn.Module):
    """Paddings of a map that is stored channels last: before a convolution, of ones, of rows alone, and of channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pad = torch.constant_pad_nd
        merged = F.conv2d(pad(x + 1, (0, 0, 0, 1, 0, 1)).permute(0, 3, 1, 2), torch.ones(2, 6, 3, 3), stride=2)
        ones, rows = pad(x * 2, (0, 0, 1, 2, 3, 0), 1.0), pad(x * 3, (0, 0, 0, 0, 1, 1))
        return torch.cat([part.flatten() for part in (merged, ones, rows, pad(x * 4, (1, 1, 1, 1)))])


@pytest.mark.parametrize(("name", "changes"), [("pads", 1), ("half_pads", 2)])
def test_maps_are_padded_as_rows_where_no_convolution_takes_the_zeros(name: str, changes: int) -> None:
    graph, changed = rewritten(Padded(), torch.randn(2, 8, 10, 6), name)
    assert changed == changes
    dims = [node.meta["val"].dim() for node in calls(graph, aten.constant_pad_nd.default)]
    assert sorted(dims) == [3] * changes + [4] * (4 - changes)
