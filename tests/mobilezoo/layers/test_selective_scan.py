"""The chunked recurrence equals the sequential one, forward and backward; the scan equals its plain definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers import selective_scan
from mobilezoo.layers.selective_scan import (
    MOST_STEPS,
    MOST_STEPS_IN_FILES,
    SelectiveScan2d,
    linear_recurrence,
    plan,
    sequential_recurrence,
)

LIMITS = (MOST_STEPS, MOST_STEPS_IN_FILES)


def _inputs(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Decays in [0, 1], some of them exactly 0 or 1, inputs, and weights that make a scalar of the result."""
    generator = torch.Generator().manual_seed(seed)
    a, b, weights = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3))
    return (0.5 + a).clamp(0, 1), b, weights


@settings(max_examples=60)
@given(
    length=st.integers(1, 150),
    batch=st.integers(1, 3),
    reverse=st.booleans(),
    limit=st.sampled_from(LIMITS),
    seed=st.integers(0, 1000),
)
def test_states_and_gradients_equal_the_sequential_reference(
    length: int, batch: int, reverse: bool, limit: int, seed: int
) -> None:
    a, b, weights = _inputs((batch, length, 3), seed)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selective_scan, "MOST_STEPS", limit)
        for scan in (sequential_recurrence, linear_recurrence):
            leaves = a.clone().requires_grad_(), b.clone().requires_grad_()
            states = scan(*leaves, reverse=reverse)
            grads = torch.autograd.grad((states * weights).sum(), leaves)
            results.append((states.detach(), *grads))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("typical_decay", [0.9999, 0.99, 0.5, 1e-3, 1e-30])
def test_long_float32_sequences_stay_exact_whatever_the_decay(reverse: bool, limit: int, typical_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a = typical_decay ** (2 * torch.rand(1, 4099, 8, generator=generator))
    b = torch.randn(1, 4099, 8, generator=generator)
    exact = sequential_recurrence(a.double(), b.double(), reverse)
    got = selective_scan._scan(a, b, reverse, limit)
    assert bool(torch.isfinite(got).all())
    assert float((got - exact).abs().max() / exact.abs().max()) <= 1e-5


def test_the_gradient_has_a_gradient() -> None:
    a, b, _ = _inputs((1, 7, 2), seed=3)
    a = (0.1 + 0.8 * a).requires_grad_()
    for reverse in (False, True):
        assert torch.autograd.gradcheck(linear_recurrence, (a, b.requires_grad_(), reverse))
        assert torch.autograd.gradgradcheck(linear_recurrence, (a, b.requires_grad_(), reverse))


def test_the_gradient_keeps_only_decays_and_states() -> None:
    a, b, _ = _inputs((2, 144, 8), seed=0)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        linear_recurrence(a.requires_grad_(), b.requires_grad_())
    assert [t.shape for t in kept] == [a.shape, a.shape]


@pytest.mark.parametrize("limit", LIMITS)
def test_the_graph_grows_with_the_logarithm_of_the_length(limit: int) -> None:
    assert plan(9, limit)[0] <= 41
    assert plan(144, limit)[0] <= 110
    assert plan(1024, limit)[0] <= 160
    assert plan(100_003, limit)[0] <= 300
    for length in range(1, 300):
        _, steps = plan(length, limit)
        assert 1 <= steps <= limit


def _plain_scan(layer: SelectiveScan2d, x: Tensor) -> Tensor:
    """The layer as the papers write it: flip the sequence for the second direction, step through it, flip back."""
    u = F.silu(layer.conv(layer.proj_in(x)))
    batch, inner, height, width = u.shape
    u = u.flatten(2).transpose(1, 2)
    rank, weight = layer.rank, layer.proj_scan.weight
    total = torch.zeros_like(u)
    for i in range(2):
        seen = u.flip(1) if i else u
        low_rank = seen @ weight[i * rank : (i + 1) * rank].T
        b, c = (seen @ weight[2 * rank + k + i].unsqueeze(1) for k in (0, 2))
        delta = F.softplus(layer.proj_delta[i](low_rank))
        states = sequential_recurrence(torch.exp(-delta * layer.a_log[i].exp()), delta * b * seen)
        y = c * states + layer.skip[i] * seen
        total = total + (y.flip(1) if i else y)
    y = F.layer_norm(total, (inner,), layer.norm.weight, layer.norm.bias, layer.norm.eps)
    return layer.proj_out(F.silu(layer.proj_gate(x)) * y.transpose(1, 2).reshape(batch, inner, height, width))


def _lively(dim: int = 32, expand: float = 2.0) -> SelectiveScan2d:
    torch.manual_seed(0)
    layer = SelectiveScan2d(dim, expand)
    with torch.no_grad():
        for name, tensor in layer.named_parameters():
            if name in ("a_log", "skip") or name.startswith("proj_delta"):
                tensor.normal_()
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)
    return layer


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 7), (5, 4), (12, 12)])
def test_the_layer_equals_its_plain_definition_with_gradients(size: tuple[int, int]) -> None:
    layer = _lively().double().eval()
    x = torch.randn(2, 32, *size, dtype=torch.float64)
    grads = []
    for run in (layer, lambda x: _plain_scan(layer, x)):
        layer.zero_grad()
        y = run(x)
        y.sin().sum().backward()
        grads.append([y.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(grads[0]) == 1 + len(list(layer.parameters()))
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_an_image_does_not_depend_on_its_batch() -> None:
    layer = _lively().double().eval()
    x = torch.randn(3, 32, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.cat([layer(image) for image in x.split(1)]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [(12, 12), (13, 11), (3, 3)])
def test_the_exported_graph_is_static_small_dimensional_and_equal(size: tuple[int, int]) -> None:
    layer = _lively().eval()
    x = torch.randn(1, 32, *size)
    program = torch.export.export(layer, (x,))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [
        name for name in names if any(w in name for w in ("flip", "while", "cond", "expand", "sym_size", "scan"))
    ]
    for node in program.graph.nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, tuple | list) else (values,):
            assert not isinstance(value, Tensor) or value.dim() <= 4, node
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-5, atol=1e-5)


def test_the_exported_softplus_is_exact_in_the_whole_range() -> None:
    class Softplus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return selective_scan.softplus(x)

    x = torch.linspace(-120, 120, 4001)
    got = torch.export.export(Softplus(), (x,)).module()(x)
    torch.testing.assert_close(got, F.softplus(x.double()).float(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scans_in_float32(dtype: torch.dtype) -> None:
    layer = _lively().eval()
    x = torch.randn(1, 32, 12, 12)
    with torch.no_grad():
        expected = layer(x)
        got = layer.to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert float((got.float() - expected).abs().max() / expected.std()) <= (0.02 if dtype == torch.float16 else 0.2)
