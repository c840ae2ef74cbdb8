"""Halo attention (Vaswani et al., "Scaling Local Self-Attention", CVPR 2021, arXiv:2103.12731, section 2.2).

The map is cut into blocks; the queries of a block attend to the block and a halo around it, whose positions beyond the
edge are zeros. There is no official code; weights and numbers are those of timm's `HaloAttn` (Apache-2.0).

Where it differs from timm's, and why: phones refuse `unfold` and tensors of more than four dimensions, so the map is
padded once and cut by constant slices, and the relative logits come from one product with the table shifted for every
row (or column) of a block, of which each query keeps its own. Maps of any size are filled up to whole blocks with
zeros, as the halo is. Shapes: b batch, m blocks, h heads, t queries per block, d channels per head.
"""

import copy

import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.neighborhood_attention import Cuts, cut_heads, join_heads, spread
from mobilezoo.layers.window_attention import from_windows, to_windows


class HaloAttention(HaloAttn):
    """[b, dim, H, W] → [b, dim_out, ⌈H/stride⌉, ⌈W/stride⌉]; arguments and state dict are timm's."""

    def __init__(self, dim: int, dim_out: int | None = None, **kwargs: int | float | bool | None) -> None:
        super().__init__(dim, dim_out, **kwargs)
        self.key: nn.Module | None = None
        self.value: nn.Module | None = None
        self.averages = isinstance(self.pool, nn.AvgPool2d)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-side // self.block_stride) for side in x.shape[2:])
        below, right = (-side % self.block_size for side in x.shape[2:])
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        rows, cols = x.shape[2] // self.block_size, x.shape[3] // self.block_size
        q = cut_heads(to_windows(self.q(x).permute(0, 2, 3, 1), "close", rows, cols), self.num_heads)
        k, v = (self._cut(part, rows, cols) for part in self._keys_and_values(x))
        side = self.block_size_ds
        out = join_heads(torch.bmm(self._weights(q, k), v), self.num_heads)
        out = from_windows(out, "close", rows, cols, side, side).permute(0, 3, 1, 2)
        out = out.narrow(2, 0, height) if out.shape[2] > height else out
        out = out.narrow(3, 0, width) if out.shape[3] > width else out
        odd = height % 2 or width % 2
        return F.avg_pool2d(out, 2, ceil_mode=bool(odd), count_include_pad=False) if self.averages else out

    def _keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps with halos, [b, H, W, h·d]; timm's joint projection gives head by head a key and a value."""
        if self.key is not None and self.value is not None:
            return self.key(x).permute(0, 2, 3, 1), self.value(x).permute(0, 2, 3, 1)
        joint = F.pad(self.kv(x), (self.halo_size,) * 4).permute(0, 2, 3, 1)
        _, height, width, _ = joint.shape
        joint = joint.reshape(-1, self.num_heads, self.dim_head_qk + self.dim_head_v)
        k, v = joint.split([self.dim_head_qk, self.dim_head_v], dim=-1)
        return self.scale * k.reshape(-1, height, width, self.dim_out_qk), v.reshape(-1, height, width, self.dim_out_v)

    def _cut(self, x: Tensor, rows: int, cols: int) -> Tensor:
        """[b, H + 2·halo, W + 2·halo, h·d] → [b·m·h, keys, d]."""
        tall, wide = (
            Cuts(x.shape[1 + axis], self.win_size, [self.block_size * i for i in range(count)])
            for axis, count in enumerate((rows, cols))
        )
        return cut_heads(spread(x, tall, wide), self.num_heads)

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        """[b·m·h, t, keys], a sum of 1 over the keys; `k` is scaled."""
        side, win = self.block_size_ds, self.win_size
        own = torch.eye(side, dtype=q.dtype, device=q.device)
        rows = self._steps(q, self.pos_embed.height_rel, own.repeat_interleave(side, 0))
        columns = self._steps(q, self.pos_embed.width_rel, own.repeat(side, 1))
        logits = torch.bmm(q, k.transpose(1, 2)).reshape(-1, side * side, win, win)
        logits = logits + rows.reshape(-1, side * side, win, 1) + columns.reshape(-1, side * side, 1, win)
        return logits.reshape(-1, side * side, win * win).softmax(dim=-1)

    def _steps(self, q: Tensor, table: Tensor, own: Tensor) -> Tensor:
        """[b·m·h, t, window]: query times table by the step to each key along one side; `own` [t, side] picks."""
        side, win = self.block_size_ds, self.win_size
        steps = torch.arange(win, device=q.device) - torch.arange(side, device=q.device)[:, None] + win - 1
        every = F.linear(q, table.index_select(0, steps.flatten())).reshape(-1, side * side, side, win)
        return (every * own[:, :, None]).sum(dim=2)

    def fuse(self) -> "HaloAttention":
        """Keys and values as convolutions of their own that pad the halo, the scale folded into the first."""
        fused = copy.deepcopy(self)
        if not isinstance(self.kv, nn.Conv2d) or self.kv.bias is not None:  # a bias would fill the halo
            return fused
        parts = [self.dim_head_qk, self.dim_head_v]
        key, value = self.kv.weight.detach().reshape(self.num_heads, sum(parts), -1).split(parts, dim=1)
        fused.key, fused.value = self._projection(self.scale * key), self._projection(value)
        fused.kv = nn.Identity()
        return fused

    def _projection(self, weight: Tensor) -> nn.Conv2d:
        """[heads, d, dim] as a 1×1 convolution."""
        heads, width, dim = weight.shape
        conv = nn.Conv2d(dim, heads * width, 1, padding=self.halo_size, bias=False)
        conv.weight.data = weight.reshape(conv.weight.shape).contiguous()
        return conv
