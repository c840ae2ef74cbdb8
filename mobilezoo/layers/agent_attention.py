"""Agent attention (Han et al., ECCV 2024, arXiv:2312.08874, section 3.2): few agent tokens between queries and keys.

Agents, the queries' map pooled, gather from all keys, and the queries gather from the agents: two softmaxes of n × a
instead of one of n × n. Shapes: b batch, h heads, a agents, n tokens, d channels per head.
"""

import copy

import torch
from torch import Tensor, nn

from mobilezoo.layers.foldable import SplitConv
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.tokens import Grid, join_token, learned, patches_of, resized, token_of

TABLE = 7
"""Side of the coarse part of a position bias."""


class AgentBias(nn.Module):
    """[h, a, n]: a coarse map, a row and a column per agent, resized to the map; one value for a class token."""

    def __init__(self, heads: int, agents: int, grid: Grid, class_token: bool) -> None:
        super().__init__()
        self.coarse = learned(heads, agents, TABLE, TABLE)
        self.rows = learned(heads, agents, grid[0], 1)
        self.columns = learned(heads, agents, 1, grid[1])
        self.token = learned(heads, agents, 1) if class_token else None

    def forward(self, grid: Grid) -> Tensor:
        lines = resized(self.rows, (grid[0], 1)) + resized(self.columns, (1, grid[1]))
        bias = (resized(self.coarse, grid) + lines).flatten(2)
        return bias if self.token is None else torch.cat([self.token, bias], dim=2)


class AgentAttention(nn.Module):
    """Maps [b, dim, H, W], or sequences [b, dim, H·W + 1, 1] with a class token in front and their `grid`.

    `side` is the map that the position biases are made for, `agents` a square number.
    """

    def __init__(self, dim: int, num_heads: int, agents: int, side: Grid, class_token: bool) -> None:
        super().__init__()
        self.num_heads, self.class_token = num_heads, class_token
        self.scale = (dim // num_heads) ** -0.5
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.pool = nn.AdaptiveAvgPool2d(round(agents**0.5))
        self.key_bias = AgentBias(num_heads, agents, side, class_token)
        self.query_bias = AgentBias(num_heads, agents, side, class_token)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """Attention through the agents; the output has the shape of `x`.

        Args:
            x: map [b, dim, H, W], or sequence [b, dim, H·W + 1, 1] with the class token first.
            grid: rows and columns of the patches of a sequence; None for a map.
        """
        grid = grid or (x.shape[2], x.shape[3])
        q_map, k_map, v_map = self.qkv(x)
        agents = to_heads(self.pool(self._patches(q_map, grid)), self.num_heads) * self.scale  # (b h) a d
        q, k, v = (to_heads(part, self.num_heads) for part in (q_map, k_map, v_map))  # (b h) n d
        gathered = torch.bmm(self._softmax(torch.bmm(agents, k.transpose(1, 2)), self.key_bias(grid)), v)
        bias = self.query_bias(grid).transpose(1, 2)
        out = torch.bmm(self._softmax(torch.bmm(q, agents.transpose(1, 2)), bias), gathered)
        return self.proj(self._add_local(from_heads(out, self.num_heads, *x.shape[2:]), v_map, grid))

    def _softmax(self, logits: Tensor, bias: Tensor) -> Tensor:
        by_head = logits.reshape(-1, *bias.shape) + bias
        return by_head.reshape(-1, *bias.shape[1:]).softmax(dim=-1)

    def _patches(self, x: Tensor, grid: Grid) -> Tensor:
        return patches_of(x, grid) if self.class_token else x

    def _add_local(self, out: Tensor, v_map: Tensor, grid: Grid) -> Tensor:
        if not self.class_token:
            return out + self.local(v_map)
        return join_token(token_of(out), patches_of(out, grid) + self.local(patches_of(v_map, grid)))

    def fuse(self) -> "AgentAttention":
        """Queries, keys and values as convolutions of their own."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            fused.qkv = fused.qkv.fuse()
        return fused
