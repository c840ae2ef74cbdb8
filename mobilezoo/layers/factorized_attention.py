"""Factorized self-attention (FaViT, arXiv:2312.08614 section 3): sparse sub-attentions of growing reach, side by side.

The first channels attend to the map pooled by a strided convolution; the others in groups to 7×7 tokens, the
mean over windows of which one has neighbouring pixels and the other pixels a step apart. Tokens are cut out by slices,
reflected at the edges where windows reach over them. Shapes: b batch, h heads, w windows, t = 49 tokens, d channels per
head.
"""

import copy
from typing import Literal

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.size import whole_size

WINDOW = 7
TOKENS = WINDOW * WINDOW
Mean = Literal["official", "windows"]


class PooledAttention(nn.Module):
    """One head that attends to the map behind a convolution of stride `reduction`."""

    def __init__(self, dim: int, reduction: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.pool = nn.Conv2d(dim, dim, reduction, reduction)
        self.norm = LayerNorm2d(dim, eps=1e-5)
        self.key = nn.Conv2d(dim, dim, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """Attention of every query to the pooled map; the output has the shape of `query`.

        Args:
            query: projected queries [b, dim, H, W].
            x: map [b, dim, H, W] that keys and values are made of.
        """
        pooled = self.norm(self.pool(x))
        v_map = self.value(pooled)
        q, k, v = (to_heads(part, 1) for part in (query, self.key(pooled), v_map + self.local(v_map)))
        weights = torch.bmm(q * self.scale, k.transpose(1, 2)).softmax(dim=-1)
        return from_heads(torch.bmm(weights, v), 1, *query.shape[2:])


class WindowMeanAttention(nn.Module):
    """Attends to 7×7 tokens, each the mean over all windows of the pixel at its place.

    `mean="official"` averages as the official code does: with w windows, token channel c is the mean of w entries that
    follow each other in (window, channel) order, which mixes neighbouring channels. `windows` is the paper's mean.
    """

    def __init__(self, dim: int, num_heads: int, step: int, mean: Mean) -> None:
        super().__init__()
        self.num_heads, self.step, self.mean = num_heads, step, mean
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.mix: nn.Module = nn.Linear(head_dim, head_dim)
        self.key = nn.Linear(head_dim, head_dim)
        self.value = nn.Linear(head_dim, head_dim)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """Attention of every query to the mean window; the output has the shape of `query`.

        Args:
            query: projected queries [b, h·d, H, W].
            x: map [b, h·d, H, W] that keys and values are made of.
        """
        dim = x.shape[1] // self.num_heads
        tokens = self.mix(self._tokens(x).reshape(-1, TOKENS * self.num_heads, dim))
        k = self.key(tokens).reshape(-1, TOKENS, self.num_heads, dim).transpose(1, 2).reshape(-1, TOKENS, dim)
        v_map = self.value(tokens).reshape(-1, WINDOW, WINDOW, self.num_heads * dim).permute(0, 3, 1, 2)
        q, v = to_heads(query, self.num_heads), to_heads(v_map + self.local(v_map), self.num_heads)
        weights = torch.bmm(q * self.scale, k.transpose(1, 2)).softmax(dim=-1)
        return from_heads(torch.bmm(weights, v), self.num_heads, *query.shape[2:])

    def _tokens(self, x: Tensor) -> Tensor:
        """[b, h·d, H, W] → [b, t, h·d]."""
        c = x.shape[1]
        rows, columns = (places(side, self.step) for side in whole_size(x))
        tall, wide = len(rows) // WINDOW, len(columns) // WINDOW
        x = take(take(x, 2, rows), 3, columns).permute(0, 2, 3, 1)
        if self.mean == "windows":
            x = x.reshape(-1, tall, WINDOW, wide * WINDOW * c).mean(dim=1)
            return x.reshape(-1, wide, WINDOW * c).mean(dim=1).reshape(-1, TOKENS, c)
        x = x.reshape(-1, tall, WINDOW, wide * WINDOW * c).transpose(1, 2)
        x = x.reshape(-1, tall * wide, WINDOW, c).transpose(1, 2)  # (b 7) 7 w c
        by_head = x.reshape(-1, tall * wide, self.num_heads, c // self.num_heads).transpose(1, 2)  # (b t) h w d
        means = by_head.reshape(-1, self.num_heads, c // self.num_heads, tall * wide).mean(dim=-1)
        return means.reshape(-1, TOKENS, c)

    def fuse(self) -> "WindowMeanAttention":
        """The tokens' own mixing folded into keys and values."""
        fused = copy.deepcopy(self)
        if isinstance(self.mix, nn.Linear):
            for linear in (fused.key, fused.value):
                weight, first = linear.weight.detach().double(), self.mix.weight.detach().double()
                linear.bias.data += (weight @ self.mix.bias.detach().double()).to(linear.bias.dtype)
                linear.weight.data.copy_(weight @ first)
            fused.mix = nn.Identity()
        return fused


class FactorizedAttention(nn.Module):
    """[b, dim, H, W] → [b, dim, H, W]; channels go 2:7:7 of 16, or 1:7 of 8 where the map is not reduced."""

    def __init__(self, dim: int, num_heads: int, reduction: int, mean: Mean) -> None:
        super().__init__()
        self.shares = (2, 7, 7) if reduction > 1 else (1, 7)
        self.widths = [dim // sum(self.shares) * share for share in self.shares]
        self.queries = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in self.widths)
        self.pooled = PooledAttention(self.widths[0], reduction)
        local = dim - self.widths[0]
        self.dw = nn.Conv2d(local, local, 3, padding=1, groups=local)
        self.pw = nn.Conv2d(local, local, 1)
        steps = (1, reduction)
        self.windows = nn.ModuleList(
            WindowMeanAttention(width, num_heads, step, mean)
            for width, step in zip(self.widths[1:], steps, strict=False)
        )
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        queries = [query(x) for query in self.queries]
        first = self.widths[0]
        found = [self.pooled(queries[0], x.narrow(1, 0, first))]
        shared = self.pw(self.dw(x.narrow(1, first, x.shape[1] - first)))
        start = 0
        for query, window, width in zip(queries[1:], self.windows, self.widths[1:], strict=True):
            found.append(window(query, shared.narrow(1, start, width)))
            start += width
        return self.proj(torch.cat(found, dim=1))


def places(side: int, step: int) -> list[int]:
    """Positions along one side that windows of seven hold, window after window, reflected at the end.

    Args:
        side: pixels of the side.
        step: distance between the positions of one window; 1: neighbours.

    Returns:
        Seven positions per window, as many windows as cover the side.
    """
    length = step * (WINDOW - 1) + 1
    ideal = [start + step * i for start in range(0, side, length) for i in range(WINDOW)]
    period = max(1, 2 * (side - 1))
    return [min(place % period, period - place % period) if side > 1 else 0 for place in ideal]


def take(x: Tensor, axis: int, index: list[int]) -> Tensor:
    """Select positions of one axis, runs of neighbours by one slice each.

    Args:
        x: any tensor.
        axis: dimension that is selected from.
        index: positions in the order of the result; a position may occur more than once.
    """
    starts = [i for i in range(len(index)) if i == 0 or index[i] != index[i - 1] + 1]
    runs = [(index[a], b - a) for a, b in zip(starts, [*starts[1:], len(index)], strict=True)]
    if runs == [(0, x.shape[axis])]:
        return x
    return torch.cat([x.narrow(axis, first, count) for first, count in runs], dim=axis)
