"""Attention of TransNeXt with mixture-of-head gates (see `layers/head_choice.py`).

Cosine attention of TransNeXt (Shi, CVPR 2024, arXiv:2311.17132, sections 3.2, 3.3): queries and keys of unit length, a
learned temperature times the logarithm of how many keys there are, positions by a small network of log-spaced offsets.
Shapes: b batch, h heads, n positions, t = 9 neighbours, m pooled positions, d channels per head.
"""

from fractions import Fraction
from functools import lru_cache

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.head_choice import HeadGates
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.size import whole_size
from mobilezoo.layers.tokens import Grid, learned

WINDOW = 3
TAPS = WINDOW * WINDOW
MASK = -100.0
"""Added to the logits of neighbours outside the map."""
HIDDEN = 512
"""Of the network that makes position biases."""


class OffsetBias(nn.Module):
    """[h, n, m]: a network of the offset between a query and a key, on a logarithmic scale.

    `side` is the map of queries at the network's resolution, which sets the scale.
    """

    def __init__(self, num_heads: int, side: Grid) -> None:
        super().__init__()
        self.side = side
        self.fc1 = nn.Linear(2, HIDDEN)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(HIDDEN, num_heads)

    def forward(self, queries: Grid, keys: Grid) -> Tensor:
        """Position biases [h, n, m] for the logits of a map.

        Args:
            queries: rows and columns of the queries' map, n positions.
            keys: rows and columns of the keys' map, m positions; smaller where it is pooled.
        """
        device, dtype = self.fc1.weight.device, self.fc1.weight.dtype
        axes = [offsets(*pair) for pair in zip(queries, keys, strict=True)]
        scaled = [_log_spaced(values, side, device) for (values, _), side in zip(axes, self.side, strict=True)]
        size = (len(scaled[0]), len(scaled[1]))
        both = torch.stack([scaled[0][:, None].expand(size), scaled[1][None].expand(size)], dim=-1)
        table = self.fc2(self.act(self.fc1(both.to(dtype))))
        table = table.permute(2, 0, 1)
        for axis, (_, index) in enumerate(axes, start=1):
            table = table.index_select(axis, torch.tensor(index, device=device))
        table = table.reshape(-1, queries[0], keys[0], queries[1], keys[1]).transpose(2, 3)
        return table.reshape(-1, queries[0] * queries[1], keys[0] * keys[1])


@lru_cache(maxsize=64)
def offsets(queries: int, keys: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Offsets of queries from keys along one axis.

    Keys lie in the middle of the windows that an adaptive pool of the queries has.

    Args:
        queries: positions of the axis.
        keys: positions after pooling; the same number for an unpooled map.

    Returns:
        (distinct offsets in ascending order, index into them of every (query, key) pair, keys fastest).
    """
    windows = [(i * queries // keys, -(-(i + 1) * queries // keys)) for i in range(keys)]
    found = [query - Fraction(a + b - 1, 2) for query in range(queries) for a, b in windows]
    distinct = sorted(set(found))
    place = {offset: i for i, offset in enumerate(distinct)}
    return tuple(float(offset) for offset in distinct), tuple(place[offset] for offset in found)


def _log_spaced(values: tuple[float, ...], side: int, device: torch.device) -> Tensor:
    scaled = torch.tensor(values, device=device) * (8.0 / max(1, side - 1))
    return scaled.sign() * torch.log2(scaled.abs() + 1.0) / 3.0


def unit(x: Tensor) -> Tensor:
    """Rows of unit length along the last axis; no row shorter than 3e-4 grows to it, which half precision needs."""
    dim = x.shape[-1]
    return x * (torch.rsqrt(x.square().mean(dim=-1, keepdim=True).clamp(min=1e-7)) * dim**-0.5)


class CosineAttention(nn.Module):
    """What both attentions share: [b, dim, H, W] → [b, dim, H, W], heads weighed by gates of the input.

    Single heads are rows of a position: [b, n·h, d], which is the map itself with channels innermost.
    """

    def __init__(self, dim: int, num_heads: int, side: Grid, shared: int, routed: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.query = nn.Conv2d(dim, dim, 1)
        self.key = nn.Conv2d(dim, dim, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.embedding = learned(num_heads, 1, self.head_dim)
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), 1 / 0.24).expm1().log())
        self.bias = OffsetBias(num_heads, side)
        self.gates = HeadGates(dim, num_heads, shared, routed)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.register_buffer("spread", torch.ones(dim, 1, 1, 1), persistent=False)
        """A grouped 1×1 kernel that gives every channel its head's gate."""

    def rows(self, x: Tensor) -> Tensor:
        """[b, h·d, H, W] → [b, n·h, d]."""
        height, width = whole_size(x)
        return x.permute(0, 2, 3, 1).reshape(-1, height * width * self.num_heads, self.head_dim)

    def heads_first(self, rows: Tensor) -> Tensor:
        """[b, n·h, d] → [b·h, n, d]."""
        count = rows.shape[1] // self.num_heads
        by_head = rows.reshape(-1, count, self.num_heads, rows.shape[2]).transpose(1, 2)
        return by_head.reshape(-1, count, rows.shape[2])

    def scaled(self, unit_queries: Tensor, key_counts: Tensor) -> Tensor:
        """Shift the queries by the learned embedding; multiply by temperature and log key count.

        Args:
            unit_queries: [b, n·h, d], rows of unit length.
            key_counts: [n, 1, 1], how many keys each position has.
        """
        factor = F.softplus(self.temperature.transpose(0, 1)) * torch.log(key_counts).to(unit_queries.dtype)  # n h 1
        q = unit_queries.reshape(-1, *factor.shape[:2], self.head_dim)
        return ((q + self.embedding.transpose(0, 1)) * factor).reshape(unit_queries.shape)

    def gated(self, out: Tensor, x: Tensor) -> Tensor:
        """Weigh the heads by the gates of the input and project: [b, dim, H, W] → [b, dim, H, W].

        Args:
            out: results of all heads as a map [b, h·d, H, W].
            x: input [b, dim, H, W] that the gates are computed from.
        """
        weights = F.conv2d(self.gates(x), self.spread, groups=self.num_heads)  # type: ignore[arg-type]
        return self.proj(out * weights)


class GlobalAttention(CosineAttention):
    """Every position attends to every other."""

    def forward(self, x: Tensor) -> Tensor:
        grid = whole_size(x)
        count = grid[0] * grid[1]
        counts = torch.full((count, 1, 1), float(count), device=x.device)
        q = self.heads_first(self.scaled(unit(self.rows(self.query(x))), counts))
        k = self.heads_first(unit(self.rows(self.key(x))))
        logits = torch.bmm(q, k.transpose(1, 2)).reshape(-1, self.num_heads, count, count) + self.bias(grid, grid)
        out = torch.bmm(logits.reshape(-1, count, count).softmax(dim=-1), to_heads(self.value(x), self.num_heads))
        return self.gated(from_heads(out, self.num_heads, *grid), x)


class AggregatedAttention(CosineAttention):
    """Every position attends to its 3×3 neighbours and to the map pooled by `reduction`, in one softmax.

    Neighbours are shifted maps, so that nothing is unfolded.
    """

    def __init__(self, dim: int, num_heads: int, side: Grid, shared: int, routed: int, reduction: int) -> None:
        super().__init__(dim, num_heads, side, shared, routed)
        self.reduction = reduction
        self.pool = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        self.norm = LayerNorm2d(dim, eps=1e-5)
        self.tap_bias = nn.Parameter(torch.zeros(num_heads, TAPS))
        self.tap_tokens = learned(num_heads, self.head_dim, TAPS)
        self.tap_offset = nn.Parameter(torch.zeros(num_heads, 1, TAPS))

    def forward(self, x: Tensor) -> Tensor:
        grid = whole_size(x)
        small = (max(1, grid[0] // self.reduction), max(1, grid[1] // self.reduction))
        count, pooled = grid[0] * grid[1], small[0] * small[1]
        seen = neighbors_inside(grid, x.device)  # n t
        q = unit(self.rows(self.query(x)))
        scaled = self.scaled(q, seen.sum(dim=1)[:, None, None] + float(pooled))
        near = self._near(scaled, unit(self.rows(self.key(x))), seen, grid)
        far, far_values = self._far(x, self.heads_first(scaled), small)
        weights = torch.cat([near, far], dim=-1).softmax(dim=-1)  # b h n t+m
        q = self.heads_first(q).reshape(-1, self.num_heads, count, self.head_dim)
        mixed = weights.narrow(-1, 0, TAPS) + torch.matmul(q, self.tap_tokens[None]) + self.tap_offset
        mixed = mixed.transpose(1, 2).reshape(-1, count * self.num_heads, TAPS)
        local = None
        for i, shifted in enumerate(self._shifts(self.rows(self.value(x)), grid)):
            part = mixed.narrow(-1, i, 1) * shifted
            local = part if local is None else local + part
        assert local is not None
        out = torch.bmm(weights.narrow(-1, TAPS, pooled).reshape(-1, count, pooled), far_values)
        local = local.reshape(-1, *grid, x.shape[1]).permute(0, 3, 1, 2)
        return self.gated(from_heads(out, self.num_heads, *grid) + local, x)

    def _near(self, scaled: Tensor, keys: Tensor, seen: Tensor, grid: Grid) -> Tensor:
        """Logits of the neighbours, [b, h, n, t]."""
        q = scaled * float(self.head_dim)
        logits = torch.cat([(q * k).mean(dim=-1, keepdim=True) for k in self._shifts(keys, grid)], dim=-1)
        by_head = logits.reshape(-1, len(seen), self.num_heads, TAPS).transpose(1, 2)
        return by_head + (self.tap_bias[:, None] + (1.0 - seen.to(q.dtype)) * MASK)

    def _far(self, x: Tensor, scaled: Tensor, small: Grid) -> tuple[Tensor, Tensor]:
        """Logits of the pooled positions, [b, h, n, m], and their values [b·h, m, d]."""
        pooled = self.norm(F.adaptive_avg_pool2d(self.act(self.pool(x)), small))
        k = self.heads_first(unit(self.rows(self.key(pooled))))
        logits = torch.bmm(scaled, k.transpose(1, 2))
        logits = logits.reshape(-1, self.num_heads, scaled.shape[1], small[0] * small[1])
        return logits + self.bias(whole_size(x), small), to_heads(self.value(pooled), self.num_heads)

    def _shifts(self, rows: Tensor, grid: Grid) -> list[Tensor]:
        """[b, n·h, d] → nine of the same, moved by one position, zeros outside."""
        padded = F.pad(rows.reshape(-1, *grid, self.num_heads * self.head_dim), (0, 0, 1, 1, 1, 1))
        places = [divmod(i, WINDOW) for i in range(TAPS)]
        return [padded.narrow(1, y, grid[0]).narrow(2, x, grid[1]).reshape(rows.shape) for y, x in places]


def neighbors_inside(grid: Grid, device: torch.device) -> Tensor:
    """Mask [n, t]: 1 where a position's neighbour lies on the map.

    Args:
        grid: rows and columns of the map, n positions.
        device: device of the mask.
    """
    steps = torch.arange(-(WINDOW // 2), WINDOW // 2 + 1, device=device)
    rows, columns = (_inside(torch.arange(side, device=device)[:, None] + steps, side) for side in grid)
    both = rows[:, None, :, None] * columns[None, :, None, :]
    return both.reshape(grid[0] * grid[1], TAPS)


def _inside(places: Tensor, side: int) -> Tensor:
    return ((places >= 0) & (places < side)).float()
