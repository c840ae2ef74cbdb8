"""Channels-last rewriting keeps every value and leaves permutes only around convolutions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobilezoo_export.passes import run_passes
from mobilezoo_export.passes.graph import aten, calls, trace
from mobilezoo_export.passes.layout_rules import is_free, padding_in_order, reduced_order, reshaped_order


class Block(nn.Module):
    """Convolutions around one body given as a function."""

    def __init__(self, body, channels: int = 12) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.body = body
        self.stem, self.head = nn.Conv2d(3, 12, 3, 1, 1), nn.Conv2d(channels, 4, 1)
        self.linear, self.norm = nn.Linear(12, 12), nn.LayerNorm(12)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self, self.stem(x)))


def attention(_: Block, x: torch.Tensor) -> torch.Tensor:
    b, _c, h, w = x.shape
    q, k, v = x.flatten(2).chunk(3, 1)
    weights = (q.transpose(-2, -1) @ k * 0.5).softmax(-1)
    out = (v @ weights.transpose(-2, -1)).reshape(b, -1, h, w)
    return torch.cat([out, x[:, 4:]], 1)


def tokens(block: Block, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    t = block.norm(x.flatten(2).transpose(1, 2))
    return (t + block.linear(t)).transpose(1, 2).reshape(b, c, h, w)


def channels_last_norm(block: Block, x: torch.Tensor) -> torch.Tensor:
    return block.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gate(_: Block, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) + torch.arange(12.0).reshape(12, 1, 1)


def coordinates(_: Block, x: torch.Tensor) -> torch.Tensor:
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
    both = torch.cat([rows, columns], 2)
    rows, columns = both.split([x.shape[2], x.shape[3]], 2)
    return x * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid()


def slices_and_pads(_: Block, x: torch.Tensor) -> torch.Tensor:
    padded = F.pad(x, (1, 2, 0, 1))[:, :, 1:, 2:-1]
    return padded.select(2, 0).unsqueeze(2) + padded * padded.amax(1, keepdim=True)


BODIES = [attention, tokens, channels_last_norm, gate, coordinates, slices_and_pads]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_outputs_are_equal_and_permutes_stand_only_at_convolutions(body) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model, x = Block(body), torch.randn(2, 3, 6, 5)
    graph = trace(model, x)
    run_passes(graph, x, ["canonical", "noop", "layout"])
    torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
    for node in calls(graph, aten.permute.default):
        around = [node.args[0], *node.users]
        at_edge = any(n.target is aten.conv2d.default or n.op in ("placeholder", "output") for n in around)  # type: ignore[union-attr]
        right_of_product = any(n.target is aten.einsum.default for n in node.users)
        assert at_edge or right_of_product, node.format_node()


@settings(max_examples=150)
@given(st.data())
def test_a_reshape_in_another_order_moves_no_element(data: st.DataObject) -> None:
    """Whatever order and shapes: where the rule says it works, it gives NumPy's answer."""
    pieces = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5))
    total = int(np.prod(pieces))

    def shape() -> list[int]:
        cuts, left = [], total
        while left > 1 and len(cuts) < 4:
            factor = data.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
            cuts.append(factor)
            left //= factor
        return [*cuts, left]

    before, after = shape(), shape()
    order = tuple(data.draw(st.permutations(range(len(before)))))
    new_order = reshaped_order(before, after, order)
    if new_order is None:
        return
    logical = np.arange(total).reshape(before)
    stored = logical.transpose(order).reshape([after[axis] for axis in new_order])
    np.testing.assert_array_equal(stored, logical.reshape(after).transpose(new_order))


def test_tokens_and_heads_are_reshapes_of_the_stored_image() -> None:
    assert reshaped_order((1, 12, 7, 7), (1, 12, 49), (0, 2, 3, 1)) == (0, 2, 1)
    assert reshaped_order((1, 12, 49), (1, 3, 4, 49), (0, 2, 1)) == (0, 3, 1, 2)
    assert reshaped_order((1, 12, 7, 7), (1, 588), (0, 2, 3, 1)) is None


def test_orders_through_reductions_padding_and_unit_axes() -> None:
    assert reduced_order((0, 2, 3, 1), [2, 3]) == (0, 1)
    assert padding_in_order([1, 2, 3, 4], (0, 2, 3, 1)) == [0, 0, 1, 2, 3, 4, 0, 0]
    assert is_free((1, 8, 1, 1), (0, 2, 3, 1), (0, 1, 2, 3))
    assert not is_free((1, 8, 2, 1), (0, 2, 3, 1), (0, 1, 2, 3))


class Residuals(nn.Module):
    """Tokens that come with their features outermost, as unfolded patches do, through residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.linears = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x * 2).permute(2, 1, 0)
        for norm, linear in zip(self.norms, self.linears, strict=True):
            x = x + linear(norm(x))
        return x


def test_a_residual_sum_does_not_go_back_to_features_outermost() -> None:
    network, example = Residuals().eval(), torch.randn(8, 4, 6)
    graph = trace(network, example)
    run_passes(graph, example, ("layout",))
    torch.testing.assert_close(graph(example), network(example))
    assert len(list(calls(graph, aten.permute.default))) <= 2


class TokenInFront(nn.Module):
    """A learned token before the pixels of a map, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.token = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.token, self.stem(x).reshape(1, 8, -1, 1)], 2)
        return tokens + self.head(tokens)


def test_constants_have_no_say_in_the_layout_of_a_join() -> None:
    model, x = TokenInFront(), torch.randn(1, 4, 5, 3)

    class ChannelsLast(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return model(image.permute(0, 3, 1, 2))

    graph = trace(ChannelsLast(), x)
    run_passes(graph, x, ("canonical", "layout"))
    torch.testing.assert_close(graph(x), model(x.permute(0, 3, 1, 2)))
    joined = next(calls(graph, aten.cat.default))
    assert joined.args[0][1].target is not aten.permute.default
    assert joined.args[1] == 1


class Transforms(nn.Module):
    """A map times constant matrices along its rows, its columns and its channels, as Fourier transforms are written."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("tall", torch.randn(4, 6))
        self.register_buffer("wide", torch.randn(5, 3))
        self.register_buffer("deep", torch.randn(12, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.matmul(self.tall, torch.matmul(self.stem(x), self.wide))  # type: ignore[arg-type]
        return self.head(torch.matmul(x.permute(0, 2, 3, 1), self.deep).permute(0, 3, 1, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 2])
def test_products_with_constant_matrices_turn_no_map(batch: int) -> None:
    model, x = Transforms(), torch.randn(batch, 3, 6, 5)
    graph = trace(model, x)
    run_passes(graph, x, ["canonical", "noop", "layout"])
    torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
    moved = [node for node in calls(graph, aten.permute.default) if aten.conv2d.default not in _around(node)]
    assert not moved


def _around(node: torch.fx.Node) -> set[object]:
    """Operators that a node stands between; the graph's input and output count as convolutions."""
    ends = (node.args[0], *node.users)
    return {n.target if n.op == "call_function" else aten.conv2d.default for n in ends}  # type: ignore[union-attr]
