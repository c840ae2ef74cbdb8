"""Window attention whose windows are neighbourhoods, strided grids, or both (EMOv2, arXiv:2412.06674 §3).

With a map of n·s rows and n·s columns and windows of s×s tokens, a *close* window holds s×s neighbours and a *remote*
window holds every n-th token of every n-th row, so it spans the whole map. Both share the queries, keys and values.

Shapes: b batch, c channels, n windows, h heads, d channels per head, t = s·s tokens per window. Channels come last
while windows are cut, as phone runtimes store them, so that every move is one of whole tokens; no tensor has more than
four dimensions, larger ones are refused or mislaid there.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import SplitConv

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
        self.qk: nn.Module = SplitConv(None, dim, dim, parts=2, bias=True)
        self.v = nn.Conv2d(dim, value_dim, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = -height % self.window, -width % self.window
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        rows, cols = (height + below) // self.window, (width + right) // self.window
        q, k = self.qk(x)
        v = self.act(self.v(x))
        q, k, v = (part.permute(0, 2, 3, 1) for part in (q, k, v))
        # One window holds the whole map: its close and remote forms are the same sum.
        shared = self.share_equal_forms and rows == cols == 1 and len(self.forms) > 1
        parts = [self._attend(q, k, v, form, rows, cols) for form in (self.forms[:1] if shared else self.forms)]
        out = sum(parts[1:], parts[0]) if not shared else parts[0] * float(len(self.forms))
        out = out.permute(0, 3, 1, 2)
        # Only the cuts that cut: converters fail on slices that change nothing.
        out = out.narrow(2, 0, height) if below else out
        return out.narrow(3, 0, width) if right else out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, form: Form, rows: int, cols: int) -> Tensor:
        q, k, v = (self._heads(to_windows(part, form, rows, cols)) for part in (q, k, v))  # (n h) t d
        if self.scale != 1.0:
            q = q * self.scale
        # bmm, because the general matrix product exports with an expand on either side.
        attn = torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1)  # (n h) t t
        out = torch.bmm(attn, v)
        tokens, dim = out.shape[1:]
        merged = out.reshape(-1, self.num_heads, tokens, dim).transpose(1, 2).reshape(-1, tokens, self.num_heads * dim)
        return from_windows(merged, form, rows, cols, self.window, self.window)

    def _heads(self, x: Tensor) -> Tensor:
        """[n, t, h·d] → [n·h, t, d]."""
        _, tokens, c = x.shape
        dim = c // self.num_heads
        return x.reshape(-1, tokens, self.num_heads, dim).transpose(1, 2).reshape(-1, tokens, dim)

    def fuse(self) -> "WindowAttention":
        """The scale folded into the queries' projection; equal forms (a map of one window) computed once."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qk, SplitConv):
            fused.qk = fused.qk.fuse()
            for tensor in fused.qk.convs[0].parameters():
                tensor.data *= self.scale
        fused.scale = 1.0
        fused.share_equal_forms = True
        return fused


def to_windows(x: Tensor, form: Form, rows: int, cols: int) -> Tensor:
    """Cut a map into windows: [b, H, W, c] → [b·rows·cols, t, c] with t = H/rows · W/cols tokens.

    Windows and the tokens in them are in row order.

    Args:
        x: channels-last map [b, H, W, c].
        form: close: neighbours; remote: every rows-th row and cols-th column.
        rows: windows from top to bottom, a divisor of H.
        cols: windows from left to right, a divisor of W.
    """
    _, height, width, c = x.shape
    tall, wide = height // rows, width // cols
    if rows == cols == 1:
        return x.reshape(-1, tall * wide, c)
    if form == "close":
        return x.reshape(-1, tall, cols, wide * c).transpose(1, 2).reshape(-1, tall * wide, c)
    x = x.reshape(-1, tall, rows, width * c).transpose(1, 2)
    return x.reshape(-1, tall * wide, cols, c).transpose(1, 2).reshape(-1, tall * wide, c)


def from_windows(x: Tensor, form: Form, rows: int, cols: int, tall: int, wide: int) -> Tensor:
    """The inverse of `to_windows`: [b·rows·cols, tall·wide, c] → [b, rows·tall, cols·wide, c].

    Args:
        x: windows in row order.
        form: the form they were cut in.
        rows: windows from top to bottom.
        cols: windows from left to right.
        tall: rows of tokens in a window.
        wide: columns of tokens in a window.
    """
    c, height, width = x.shape[2], rows * tall, cols * wide
    if rows == cols == 1:
        return x.reshape(-1, height, width, c)
    if form == "close":
        return x.reshape(-1, cols, tall, wide * c).transpose(1, 2).reshape(-1, height, width, c)
    x = x.reshape(-1, cols, tall * wide, c).transpose(1, 2)
    return x.reshape(-1, rows, tall, width * c).transpose(1, 2).reshape(-1, height, width, c)
