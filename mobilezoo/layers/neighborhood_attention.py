"""Neighborhood attention (Hassani et al., CVPR 2023, arXiv:2204.07143; dilated: arXiv:2209.15001).

A query attends to the k×k positions around it, d apart; near an edge the window moves inside, so that every query has
k·k keys. Two forms compute the same: the plain one gathers the keys of every query, with exactly the published number
of operations; the deployment form has no gathers, which phones refuse or copy. There the map is cut into d×d strided
grids, each grid into tiles, and the queries of a tile attend to all keys that any of them sees, the others masked by a
constant bias. Maps are channels-last inside. Shapes: b batch, h heads, n positions, m tiles, d channels per head.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import SplitConv
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.size import whole_size
from mobilezoo.layers.tokens import Grid, learned
from mobilezoo.layers.window_attention import from_windows, to_windows

MASK = -64.0
"""Added to the logits of keys outside a window: far below any logit, near enough for eight bits to hold both."""


class NeighborhoodAttention(nn.Module):
    """[b, dim, H, W] → [b, dim, H, W]; maps smaller than a window are padded with zeros, as officially."""

    def __init__(self, dim: int, num_heads: int, kernel: int = 7, dilation: int = 1) -> None:
        super().__init__()
        self.num_heads, self.kernel, self.dilation = num_heads, kernel, dilation
        self.scale = (dim // num_heads) ** -0.5
        self.gathers = True
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.table = learned(num_heads, 2 * kernel - 1, 2 * kernel - 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """Attention of every position to the k×k positions around it; the output has the shape of `x`.

        Args:
            x: map [b, dim, H, W].
            grid: ignored; transformers pass it to every attention.
        """
        height, width = whole_size(x)
        least = self.kernel * self.dilation
        below, right = max(0, least - height), max(0, least - width)
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        q, k, v = self.qkv(x)
        if self.scale != 1.0:
            q = q * self.scale
        whole = not (x.shape[2] % self.dilation or x.shape[3] % self.dilation)
        out = self._tiled(q, k, v) if whole and not self.gathers else self._gathered(q, k, v)
        out = out.narrow(2, 0, height) if below else out
        return self.proj(out.narrow(3, 0, width) if right else out)

    def _gathered(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Maps [b, dim, H, W] → the same; every query with copies of its keys."""
        size, count = whole_size(q), self.kernel**2
        (rows, row_steps), (columns, column_steps) = (neighbors(s, self.kernel, self.dilation, q.device) for s in size)
        keys = (rows[:, None, :, None] * size[1] + columns[None, :, None, :]).reshape(-1)
        bias = self.table.index_select(1, row_steps.flatten()).index_select(2, column_steps.flatten())
        bias = bias.reshape(-1, size[0], self.kernel, size[1], self.kernel).transpose(2, 3).reshape(-1, 1, count)
        q, k, v = (to_heads(part, self.num_heads) for part in (q, k, v))  # (b h) n d
        dim = q.shape[-1]
        k, v = (part.index_select(1, keys).reshape(-1, count, dim) for part in (k, v))  # (b h n) k·k d
        logits = torch.bmm(q.reshape(-1, 1, dim), k.transpose(1, 2))
        weights = (logits.reshape(-1, *bias.shape) + bias).softmax(dim=-1).reshape(-1, 1, count)
        return from_heads(torch.bmm(weights, v).reshape(-1, size[0] * size[1], dim), self.num_heads, *size)

    def _tiled(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same without gathers; both sides divide by the dilation."""
        height, width = whole_size(q)
        step, size = self.dilation, (height // self.dilation, width // self.dilation)
        q, k, v = (part.permute(0, 2, 3, 1) for part in (q, k, v))
        if step > 1:
            q, k, v = (to_windows(part, "remote", step, step).reshape(-1, *size, part.shape[-1]) for part in (q, k, v))
        out = self._in_tiles(q, k, v, size)
        if step > 1:
            out = from_windows(out.reshape(-1, size[0] * size[1], out.shape[-1]), "remote", step, step, *size)
        return out.permute(0, 3, 1, 2)

    def _in_tiles(self, q: Tensor, k: Tensor, v: Tensor, size: Grid) -> Tensor:
        """Undilated attention on [b, H, W, dim], H and W as in `size`."""
        height, width = size
        tall, wide = Tiles(height, self.kernel), Tiles(width, self.kernel)
        below, right = tall.count * tall.size - height, wide.count * wide.size - width
        if below or right:
            q = F.pad(q, (0, 0, 0, right, 0, below))
        q = to_windows(q, "close", tall.count, wide.count)
        q, k, v = (cut_heads(part, self.num_heads) for part in (q, spread(k, tall, wide), spread(v, tall, wide)))
        bias = self._tile_bias(tall, wide)
        logits = torch.bmm(q, k.transpose(1, 2)).reshape(-1, *bias.shape) + bias  # b (m h) q k
        out = torch.bmm(logits.reshape(-1, *bias.shape[1:]).softmax(dim=-1), v)
        out = from_windows(join_heads(out, self.num_heads), "close", tall.count, wide.count, tall.size, wide.size)
        out = out.narrow(1, 0, height) if below else out
        return out.narrow(2, 0, width) if right else out

    def _tile_bias(self, tall: "Tiles", wide: "Tiles") -> Tensor:
        """[m·h, queries, keys]: the position table's entries inside a window, MASK outside."""
        rows, seen_rows = tall.steps(self.table.device)
        columns, seen_columns = wide.steps(self.table.device)
        bias = self.table.index_select(1, rows.flatten()).index_select(2, columns.flatten())
        bias = bias.reshape(-1, *rows.shape, *columns.shape)  # h, tiles, queries and keys of rows, then of columns
        seen = (seen_rows[..., None, None, None] * seen_columns).to(bias.dtype)
        bias = bias * seen + (1.0 - seen) * MASK
        queries, keys = tall.size * wide.size, tall.keys * wide.keys
        return bias.permute(1, 4, 0, 2, 5, 3, 6).reshape(-1, queries, keys)

    def fuse(self) -> "NeighborhoodAttention":
        """No gathers; queries, keys and values as convolutions of their own, the scale folded into the first."""
        fused = copy.deepcopy(self)
        fused.gathers = False
        if isinstance(fused.qkv, SplitConv):
            fused.qkv = fused.qkv.fuse()
            for tensor in fused.qkv.convs[0].parameters():
                tensor.data *= self.scale
            fused.scale = 1.0
        return fused


class Cuts:
    """Where one side of a map is cut, with overlaps: `keys` positions from each of `starts` on."""

    def __init__(self, side: int, keys: int, starts: list[int]) -> None:
        self.side, self.keys, self.starts, self.count = side, keys, starts, len(starts)


class Tiles(Cuts):
    """How one side of a map is cut: `count` tiles of `size` queries, each with `keys` keys from `starts` on.

    A side of up to two windows stays whole.
    """

    def __init__(self, side: int, kernel: int) -> None:
        self.kernel = kernel
        self.size = side if side <= 2 * kernel else kernel
        keys = min(side, self.size + kernel - 1)
        starts = [min(max(first - kernel // 2, 0), side - keys) for first in range(0, side, self.size)]
        super().__init__(side, keys, starts)

    def steps(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """[tiles, queries, keys]: index into the position table, and whether the query's window holds the key."""
        queries = torch.arange(self.count * self.size, device=device).clamp(max=self.side - 1)
        queries = queries.reshape(self.count, self.size, 1)
        keys = torch.tensor(self.starts, device=device)[:, None, None] + torch.arange(self.keys, device=device)
        first = (queries - self.kernel // 2).clamp(0, self.side - self.kernel)
        steps = (keys - queries + self.kernel - 1).clamp(0, 2 * self.kernel - 2)
        return steps, (keys >= first) & (keys < first + self.kernel)


def neighbors(side: int, kernel: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keys of every query along one side.

    Args:
        side: positions, at least `kernel` · `dilation`.
        kernel: k, keys per query.
        dilation: distance between neighbouring keys.
        device: device of the result.

    Returns:
        (positions of the keys, their indices into the position table), each [side, kernel].
    """
    query = torch.arange(side, device=device)
    place, phase = query // dilation, query % dilation
    length = (side - phase + dilation - 1) // dilation  # of the strided line that the query is on
    first = torch.minimum((place - kernel // 2).clamp(min=0), length - kernel)
    keys = first[:, None] + torch.arange(kernel, device=device)
    return phase[:, None] + dilation * keys, keys - place[:, None] + kernel - 1


def spread(x: Tensor, tall: Cuts, wide: Cuts) -> Tensor:
    """The keys of all tiles, overlaps copied: [b, H, W, c] → [b·m, keys, c].

    Args:
        x: map [b, H, W, c].
        tall: cuts of the rows.
        wide: cuts of the columns.
    """
    c = x.shape[-1]
    if tall.count > 1:
        parts = [x.narrow(1, start, tall.keys).reshape(-1, 1, tall.keys, wide.side * c) for start in tall.starts]
        x = torch.cat(parts, dim=1)
    x = x.reshape(-1, tall.keys, wide.side, c)
    if wide.count == 1:
        return x.reshape(-1, tall.keys * wide.keys, c)
    parts = [x.narrow(2, start, wide.keys).reshape(-1, 1, tall.keys * wide.keys, c) for start in wide.starts]
    return torch.cat(parts, dim=1).reshape(-1, tall.keys * wide.keys, c)


def cut_heads(x: Tensor, num_heads: int) -> Tensor:
    """Channels → heads: [b, n, h·d] → [b·h, n, d].

    Args:
        x: sequence whose channels are heads, then d channels each.
        num_heads: h.
    """
    _, tokens, c = x.shape
    return x.reshape(-1, tokens, num_heads, c // num_heads).transpose(1, 2).reshape(-1, tokens, c // num_heads)


def join_heads(x: Tensor, num_heads: int) -> Tensor:
    """The inverse of `cut_heads`: [b·h, n, d] → [b, n, h·d].

    Args:
        x: result of all heads.
        num_heads: h.
    """
    _, tokens, dim = x.shape
    return x.reshape(-1, num_heads, tokens, dim).transpose(1, 2).reshape(-1, tokens, num_heads * dim)
