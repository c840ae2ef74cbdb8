"""InLine attention (Han et al., NeurIPS 2024, arXiv:2412.06590, section 4): injective linear attention, local part.

The weights of a query add up to one by subtraction instead of division (equation 5), which is a product with the keys'
deviations from their mean: out = q · ((k - mean k)ᵀ v) · s / n + mean v. The local part (equation 8) is a 3×3 depthwise
kernel made of the image's mean token, written as nine shifted products, since phones take no kernels that are computed.
Shapes: b batch, h heads, n tokens, d channels per head.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import ParallelConvs, SplitConv
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.tokens import Grid, join_token, patches_of, token_of

SIDE = 3
"""Of the local kernel, in pixels."""


class ComputedKernel(nn.Module):
    """Depthwise 3×3 convolution of a map whose kernel is made, per image, of a token [b, dim, 1, 1]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(dim, dim, 1, groups=num_heads)
        self.act = nn.GELU()
        self.taps = nn.ModuleList(nn.Conv2d(dim, dim, 1, groups=num_heads) for _ in range(SIDE * SIDE))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """Convolve each image with its own kernel, zeros beyond the edge.

        Args:
            x: map [b, dim, H, W].
            token: [b, dim, 1, 1] that the kernel is computed from.
        """
        height, width = x.shape[2:]
        hidden = self.act(self.hidden(token))
        padded = F.pad(x, (1, 1, 1, 1))
        out = None
        for i, tap in enumerate(self.taps):
            part = padded.narrow(2, i // SIDE, height).narrow(3, i % SIDE, width) * tap(hidden)
            out = part if out is None else out + part
        assert out is not None
        return out


class InlineAttention(nn.Module):
    """Maps [b, dim, H, W], or sequences [b, dim, H·W + 1, 1] with a class token in front and their `grid`."""

    def __init__(self, dim: int, num_heads: int, class_token: bool) -> None:
        super().__init__()
        self.num_heads, self.class_token = num_heads, class_token
        self.scale = (dim // num_heads) ** -0.5
        self.qkv: nn.Module = SplitConv(None, dim, dim, parts=3, bias=True)
        self.keys: ChannelRows | None = None
        self.local = ComputedKernel(dim, num_heads)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """Linear attention plus the local part; the output has the shape of `x`.

        Args:
            x: map [b, dim, H, W], or sequence [b, dim, H·W + 1, 1] with the class token first.
            grid: rows and columns of the patches of a sequence; None for a map.
        """
        grid = grid or (x.shape[2], x.shape[3])
        q_map, k, v_map = self._projected(x)
        q, v = (to_heads(part, self.num_heads) for part in (q_map, v_map))  # (b h) n d
        k = k - k.mean(dim=2, keepdim=True)
        mixed = torch.bmm(k, v) * (self.scale / k.shape[2])  # (b h) d d
        out = torch.bmm(q, mixed) + v.mean(dim=1, keepdim=True)
        whole = from_heads(out, self.num_heads, *x.shape[2:])
        token = x.mean((2, 3), keepdim=True)
        if not self.class_token:
            return self.proj(whole + self.local(v_map, token))
        patches = patches_of(whole, grid) + self.local(patches_of(v_map, grid), token)
        return self.proj(join_token(token_of(whole), patches))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of queries and values, and keys by channel: [b·h, d, n]."""
        if self.keys is None:
            q_map, k_map, v_map = self.qkv(x)
            return q_map, to_heads(k_map, self.num_heads).transpose(1, 2), v_map
        q_map, v_map = self.qkv(x)
        rows = self.keys(x)
        return q_map, rows.reshape(-1, rows.shape[1] // self.num_heads, rows.shape[2]), v_map

    def fuse(self) -> "InlineAttention":
        """Queries and values as convolutions of their own; keys by channel, as their product with the values wants."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            parts = fused.qkv.fuse()
            query, key, value = (conv for conv in parts.convs if isinstance(conv, nn.Conv2d))
            fused.qkv, fused.keys = ParallelConvs(parts.norm, [query, value]), ChannelRows(key)
        return fused


class ChannelRows(nn.Module):
    """A 1×1 convolution whose output has a row per channel, [b, c, H·W]: no phone has to turn a map for it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None
        self.weight = nn.Parameter(conv.weight.detach()[None, :, :, 0, 0].clone())
        self.bias = nn.Parameter(conv.bias.detach()[None, :, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        rows = x.permute(0, 2, 3, 1).reshape(-1, height * width, channels)
        return torch.matmul(self.weight, rows.transpose(1, 2)) + self.bias
