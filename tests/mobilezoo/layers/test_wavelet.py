"""Haar bands rebuild their map, and the wavelet convolution equals its definition by transposed convolutions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mobilezoo.layers.wavelet import BANDS, WaveletConv, haar_filters, haar_synthesis

SIZES = [(1, 1), (2, 2), (3, 3), (7, 6), (12, 12), (1, 5)]


def test_the_filters_are_orthonormal() -> None:
    flat = haar_filters().reshape(BANDS, 4)
    assert torch.equal(flat @ flat.T, torch.eye(4))


def test_synthesis_inverts_analysis() -> None:
    x = torch.randn(2, 3, 6, 8)
    bands = [F.conv2d(x, taps.repeat(3, 1, 1, 1), stride=2, groups=3) for taps in haar_filters()]
    torch.testing.assert_close(haar_synthesis(*bands) / 2, x)


def _reference(layer: WaveletConv, x: Tensor) -> Tensor:
    """Bands interleaved channel by channel, analysis and synthesis as grouped (transposed) convolutions."""
    dim, (height, width) = x.shape[1], x.shape[2:]
    taps = haar_filters()[:, None].repeat(dim, 1, 1, 1).to(x)
    y = F.conv2d(F.pad(x, (0, width % 2, 0, height % 2)), taps, stride=2, groups=dim)
    kernels = torch.stack([band.conv.weight for band in layer.bands], 1).flatten(0, 1)
    scales = torch.stack([band.scale[:, 0] for band in layer.bands], 1).flatten(0, 1)
    y = F.conv2d(y, kernels, padding="same", groups=BANDS * dim) * scales
    return F.conv_transpose2d(y, taps, stride=2, groups=dim)[:, :, :height, :width]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [3, 7])
def test_the_convolution_equals_its_definition_with_gradients(size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(0)
    layer = WaveletConv(5, kernel).double()
    for band in layer.bands:
        torch.nn.init.normal_(band.scale)
    results = []
    for run in (layer, lambda x: _reference(layer, x)):
        layer.zero_grad()
        x = torch.linspace(-1, 1, 2 * 5 * size[0] * size[1], dtype=torch.float64).sin().reshape(2, 5, *size)
        y = run(x.requires_grad_())
        y.square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)])
        results[-1] = [t.clone() for t in results[-1]]
    assert results[0][0].shape == (2, 5, *size)
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_the_filters_are_frozen_contiguous_and_counted() -> None:
    layer = WaveletConv(6, 3)
    frozen = [p for p in layer.parameters() if not p.requires_grad]
    assert sum(p.numel() for p in frozen) == 2 * BANDS * 6 * 4
    assert all(p.is_contiguous() for p in frozen)
    layer(torch.randn(1, 6, 4, 4)).sum().backward()
    assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_the_exported_graph_has_no_transposed_convolution_and_cuts_odd_maps_only(size: tuple[int, int]) -> None:
    layer = WaveletConv(4, 3).eval()
    program = torch.export.export(layer, (torch.randn(1, 4, *size),))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert all(node.meta["val"].dim() <= 4 for node in calls)
    assert not any("transpose2d" in str(node.target) or "expand" in str(node.target) for node in calls)
    cuts = [node for node in calls if any(word in str(node.target) for word in ("slice", "select", "narrow"))]
    assert len(cuts) == (2 if size == (7, 5) else 0)
    assert all(node.meta["val"].shape != node.args[0].meta["val"].shape for node in cuts)
