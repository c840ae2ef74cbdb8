"""Channel attention (Ding et al., "DaViT", ECCV 2022, arXiv:2204.03645, section 3.2): channels of a head attend to each
other, so every weight is a sum over the whole map.

Where it differs from the paper's equation, as its official code does: the weights are those between keys and values,
softmax((s·k)ᵀ v), and mix the queries. Shapes: b batch, h heads, n = H·W positions, d channels per head.
"""

import copy

import torch
from torch import Tensor, nn

from mobilezoo.layers.foldable import ParallelConvs, SplitConv
from mobilezoo.layers.inline_attention import ChannelRows
from mobilezoo.layers.map_attention import from_heads, to_heads


class ChannelAttention(nn.Module):
    """[b, dim, H, W] → [b, dim, H, W]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.keys: ChannelRows | None = None
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q_map, k, v_map = self._projected(x)
        q, v = (to_heads(part, self.num_heads) for part in (q_map, v_map))  # (b h) n d
        weights = torch.bmm(k, v).softmax(dim=-1)  # (b h) d d
        return self.proj(from_heads(torch.bmm(q, weights.transpose(1, 2)), self.num_heads, *x.shape[2:]))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of queries and values, and scaled keys by channel: [b·h, d, n]."""
        if self.keys is None:
            q_map, k_map, v_map = self.qkv(x)
            return q_map, to_heads(k_map, self.num_heads).transpose(1, 2) * self.scale, v_map
        q_map, v_map = self.qkv(x)
        rows = self.keys(x)
        return q_map, rows.reshape(-1, rows.shape[1] // self.num_heads, rows.shape[2]), v_map

    def fuse(self) -> "ChannelAttention":
        """Queries and values as convolutions of their own; keys by channel, the scale folded into them."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            parts = fused.qkv.fuse()
            query, key, value = (conv for conv in parts.convs if isinstance(conv, nn.Conv2d))
            for tensor in key.parameters():
                tensor.data *= self.scale
            fused.qkv, fused.keys = ParallelConvs(parts.norm, [query, value]), ChannelRows(key)
        return fused
