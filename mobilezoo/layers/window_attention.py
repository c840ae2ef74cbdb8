"""Window attention whose windows are neighbourhoods, strided grids, or both (EMOv2, arXiv:2412.06674 §3).

With a map of n·s rows and n·s columns and windows of s×s tokens, a *close* window holds s×s neighbours and a *remote*
window holds every n-th token of every n-th row, so it spans the whole map. Both share the queries, keys and values.

Shapes: b batch, c channels, n windows, h heads, d channels per head, t = s·s tokens per window. No tensor has more than
four dimensions: phone runtimes refuse or mislay larger ones.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Form = Literal["close", "remote"]


class WindowAttention(nn.Module):
    """Attention inside windows; queries and keys keep `dim` channels, values are widened to `value_dim` and activated.

    The map is zero-padded at the right and bottom to whole windows. Padding tokens are not masked: after the biased
    projections they take part in the softmax like any other, so the window size is part of the network's definition.
    """

    def __init__(
        self, dim: int, value_dim: int, head_dim: int, window: int, forms: tuple[Form, ...], act: nn.Module
    ) -> None:
        super().__init__()
        assert dim % head_dim == 0, "heads must divide the query channels"
        assert value_dim % (dim // head_dim) == 0, "heads must divide the value channels"
        self.num_heads = dim // head_dim
        self.window = window
        self.forms = forms
        self.scale = head_dim**-0.5
        self.share_equal_forms = False
        self.qk = nn.Conv2d(dim, 2 * dim, 1)
        self.v = nn.Conv2d(dim, value_dim, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = -height % self.window, -width % self.window
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        rows, cols = (height + below) // self.window, (width + right) // self.window
        qk, v = self.qk(x), self.act(self.v(x))
        # One window holds the whole map: its close and remote forms are the same sum.
        shared = self.share_equal_forms and rows == cols == 1
        parts = [self._attend(qk, v, form, rows, cols) for form in (self.forms[:1] if shared else self.forms)]
        out = sum(parts[1:], parts[0]) if not shared else parts[0] * float(len(self.forms))
        # Only the cuts that cut: converters fail on slices that change nothing.
        out = out.narrow(2, 0, height) if below else out
        return out.narrow(3, 0, width) if right else out

    def _attend(self, qk: Tensor, v: Tensor, form: Form, rows: int, cols: int) -> Tensor:
        tokens = self.window * self.window
        split = (-1, 2 * self.num_heads, qk.shape[1] // (2 * self.num_heads), tokens)
        q, k = to_windows(qk, form, rows, cols).reshape(split).chunk(2, dim=1)  # (b n) h d t
        v = to_windows(v, form, rows, cols).reshape(-1, self.num_heads, v.shape[1] // self.num_heads, tokens)
        if self.scale != 1.0:
            q = q * self.scale
        attn = (q.transpose(-2, -1) @ k).softmax(dim=-1)  # (b n) h t t
        return from_windows(v @ attn.transpose(-2, -1), form, rows, cols, self.window)

    def fuse(self) -> "WindowAttention":
        """The scale folded into the queries' projection; equal forms (a map of one window) computed once."""
        fused = copy.deepcopy(self)
        dim = fused.qk.in_channels
        with torch.no_grad():
            fused.qk.weight[:dim] *= self.scale
            if fused.qk.bias is not None:
                fused.qk.bias[:dim] *= self.scale
        fused.scale = 1.0
        fused.share_equal_forms = True
        return fused


def to_windows(x: Tensor, form: Form, rows: int, cols: int) -> Tensor:
    """[b, c, H, W] → [b·rows·cols, c, H/rows, W/cols] (flattened: [.., c, t]), windows in row order."""
    _, c, height, width = x.shape
    tall, wide = height // rows, width // cols
    if rows == cols == 1:
        return x.reshape(-1, c, tall * wide)
    if form == "close":
        x = x.reshape(-1, c, rows, tall * width).transpose(1, 2)
        return x.reshape(-1, c * tall, cols, wide).transpose(1, 2).reshape(-1, c, tall * wide)
    x = x.reshape(-1, c * tall, rows, width).transpose(1, 2)
    return x.reshape(-1, c * tall * wide, cols).transpose(1, 2).reshape(-1, c, tall * wide)


def from_windows(x: Tensor, form: Form, rows: int, cols: int, window: int) -> Tensor:
    """The inverse of `to_windows`: [b·rows·cols, h, d, window·window] → [b, h·d, rows·window, cols·window]."""
    c, height, width = x.shape[1] * x.shape[2], rows * window, cols * window
    if rows == cols == 1:
        return x.reshape(-1, c, height, width)
    if form == "close":
        x = x.reshape(-1, cols, c * window, window).transpose(1, 2)
        return x.reshape(-1, rows, c, window * width).transpose(1, 2).reshape(-1, c, height, width)
    x = x.reshape(-1, cols, c * window * window).transpose(1, 2)
    return x.reshape(-1, rows, c * window, width).transpose(1, 2).reshape(-1, c, height, width)
