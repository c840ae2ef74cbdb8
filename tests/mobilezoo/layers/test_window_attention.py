"""Windows are cut as EMOv2 defines them, in four dimensions, and attention in them equals a plain reference."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mobilezoo.layers.window_attention import WindowAttention, from_windows, to_windows

FORMS = ("close", "remote")


def _members(form: str, row: int, col: int, rows: int, cols: int, window: int) -> list[tuple[int, int]]:
    """The definition: a close window is a neighbourhood, a remote one takes every rows-th row and cols-th column."""
    cells = [(i, j) for i in range(window) for j in range(window)]
    if form == "close":
        return [(row * window + i, col * window + j) for i, j in cells]
    return [(i * rows + row, j * cols + col) for i, j in cells]


def _reference(layer: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention window by window with explicit indices."""
    batch, _, height, width = x.shape
    below, right = -height % layer.window, -width % layer.window
    x = F.pad(x, (0, right, 0, below))
    q, k = layer.qk(x)
    v = layer.act(layer.v(x))
    out = torch.zeros_like(v)
    rows, cols = x.shape[2] // layer.window, x.shape[3] // layer.window
    for form in layer.forms:
        for row in range(rows):
            for col in range(cols):
                i, j = torch.tensor(_members(form, row, col, rows, cols, layer.window)).T
                heads = (t[:, :, i, j].reshape(batch, layer.num_heads, -1, i.numel()) for t in (q, k, v))
                qw, kw, vw = heads
                attn = (torch.einsum("bhdt,bhds->bhts", qw, kw) * layer.scale).softmax(-1)
                out[:, :, i, j] += torch.einsum("bhts,bhds->bhdt", attn, vw).reshape(batch, -1, i.numel())
    return out[:, :, :height, :width]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (2, 3), (3, 1)])
def test_windows_hold_the_defined_tokens_and_are_put_back(form: str, rows: int, cols: int) -> None:
    window = 4
    x = torch.randn(2, 6, rows * window, cols * window)
    windows = to_windows(x.permute(0, 2, 3, 1), form, rows, cols)
    assert windows.shape == (2 * rows * cols, window * window, 6)
    expected = [
        x[b][:, i, j]
        for b in range(2)
        for row in range(rows)
        for col in range(cols)
        for i, j in [torch.tensor(_members(form, row, col, rows, cols, window)).T]
    ]
    assert torch.equal(windows, torch.stack(expected).transpose(1, 2))
    back = from_windows(windows, form, rows, cols, window, window)
    assert torch.equal(back.permute(0, 3, 1, 2), x)


@pytest.mark.parametrize("forms", [("close",), ("remote",), ("remote", "close")])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 5), (2, 3)])
def test_attention_equals_the_plain_reference_and_its_fused_form(forms: tuple[str, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(8, 24, head_dim=4, window=4, forms=forms, act=nn.GELU()).eval()
    x = torch.randn(2, 8, *size)
    with torch.no_grad():
        expected = _reference(layer, x)
        assert torch.allclose(layer(x), expected, atol=1e-5)
        fused = layer.fuse().fuse()
        assert torch.allclose(fused(x), expected, atol=1e-5)
    assert layer.scale != 1.0
