"""LightNet's linear attention in two dimensions (Qin et al., "You Only Scan Once", arXiv:2405.21022).

From the paper's text: an additive recurrence normalizes keys by the sum of their exponentials, so that without a causal
order one scan sees everything. Keys pass a softmax over the positions, out = q · (softmax(k)ᵀ v) with q behind SiLU;
norm, gate and projection follow. Positions enter as MD-LRPE, taken here in its rotary form, half of a head's channels
by row and half by column. MD-TPE could not be had in full and is left out.

Shapes: b batch, h heads, n positions, d channels per head.
"""

import copy

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.foldable import ParallelConvs, SplitConv
from mobilezoo.layers.inline_attention import ChannelRows
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.rotary import rotary_tables, rotate
from mobilezoo.layers.tokens import Grid


class LightAttention(nn.Module):
    """Maps [b, dim, H, W], or sequences [b, dim, H·W + 1, 1] with a class token in front and their `grid`.

    Args:
        dim: channels of input and output.
        num_heads: heads, of a multiple of 4 channels each.
        class_token: whether a token without a place stands in front; it is not turned.
    """

    def __init__(self, dim: int, num_heads: int, class_token: bool) -> None:
        super().__init__()
        self.num_heads, self.class_token = num_heads, class_token
        head_dim = dim // num_heads
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.keys: ChannelRows | None = None
        self.act = nn.SiLU()
        self.gate = nn.Sequential(nn.Conv2d(dim, head_dim, 1), nn.Conv2d(head_dim, dim, 1), nn.SiLU())
        self.norm = LayerNorm2d(dim, eps=1e-6)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """One attention; the output has the shape of `x`.

        Args:
            x: a map, or a sequence with its grid.
            grid: rows and columns of the patches; a map's own if None.
        """
        height, width = (int(side) for side in x.shape[2:])
        rows, columns = grid or (height, width)
        q_map, k, v_map = self._projected(x)
        q, v = (to_heads(part, self.num_heads) for part in (self.act(q_map), v_map))  # (b h) n d
        cos, sin = rotary_tables(rows, columns, q.shape[-1], q)
        if self.class_token:
            still = cos.new_ones(1, cos.shape[1])
            cos, sin = torch.cat([still, cos]), torch.cat([0.0 * still, sin])
        mixed = torch.bmm(_rotate_rows(k.softmax(dim=-1), cos.t(), sin.t()), v)  # (b h) d d
        out = from_heads(torch.bmm(rotate(q, cos, sin), mixed), self.num_heads, height, width)
        return self.proj(self.norm(out) * self.gate(x))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of queries and values, and keys by channel: [b·h, d, n]."""
        if self.keys is None:
            q_map, k_map, v_map = self.qkv(x)
            return q_map, to_heads(k_map, self.num_heads).transpose(1, 2), v_map
        q_map, v_map = self.qkv(x)
        rows = self.keys(x)
        return q_map, rows.reshape(-1, rows.shape[1] // self.num_heads, rows.shape[2]), v_map

    def fuse(self) -> "LightAttention":
        """Queries and values as convolutions of their own; keys by channel, as softmax and product want them."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            parts = fused.qkv.fuse()
            query, key, value = (conv for conv in parts.convs if isinstance(conv, nn.Conv2d))
            fused.qkv, fused.keys = ParallelConvs(parts.norm, [query, value]), ChannelRows(key)
        return fused


def _rotate_rows(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` for channels in rows: x [b·h, d, n], tables [d / 2, n]."""
    first, second = x.chunk(2, dim=1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)
