"""Multi-head self-attention over all positions of a feature map (Vaswani et al., arXiv:1706.03762, section 3.2).

Shapes: b batch, c channels, n = H·W positions, h heads, d channels per head. Channels come last while heads are cut, as
phone runtimes store them; no tensor has more than four dimensions.
"""

import copy

import torch
from torch import Tensor, nn

from mobilezoo.layers.foldable import SplitConv


class MapAttention(nn.Module):
    """[b, dim, H, W] → [b, dim, H, W]; inside are `num_heads` heads of `head_dim` channels.

    `local` is applied to the value map and added to the result before the projection, `bias` is added to the logits
    ([h, n, n], a constant of the map's size); subclasses override `position_bias` for one.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = False,
        local: nn.Module | None = None,
    ) -> None:
        super().__init__()
        head_dim = head_dim or dim // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.qkv: nn.Module = SplitConv(None, dim, num_heads * head_dim, parts=3, bias=qkv_bias)
        self.local = local
        self.proj = nn.Conv2d(num_heads * head_dim, dim, 1)

    def position_bias(self, height: int, width: int) -> Tensor | None:
        """Bias of the logits [h, n, n], n = height · width, or None for none.

        Args:
            height: rows of the map.
            width: columns of the map.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k, v_map = self.qkv(x)
        q, k, v = (to_heads(part, self.num_heads) for part in (q, k, v_map))
        if self.scale != 1.0:
            q = q * self.scale
        logits = torch.bmm(q, k.transpose(1, 2))  # (b h) n n
        bias = self.position_bias(height, width)
        if bias is not None:
            logits = (logits.reshape(-1, *bias.shape) + bias).reshape(-1, *bias.shape[1:])
        out = from_heads(torch.bmm(logits.softmax(dim=-1), v), self.num_heads, height, width)
        return self.proj(out if self.local is None else out + self.local(v_map))

    def fuse(self) -> "MapAttention":
        """Queries, keys and values as convolutions of their own, the scale folded into the first."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkv, SplitConv):
            fused.qkv = fused.qkv.fuse()
            for tensor in fused.qkv.convs[0].parameters():
                tensor.data *= self.scale
            fused.scale = 1.0
        return fused


def to_heads(x: Tensor, num_heads: int) -> Tensor:
    """Map [b, h·d, H, W] → sequence per head [b·h, n, d].

    Args:
        x: map whose channels are heads, then d channels each.
        num_heads: h.
    """
    _, c, height, width = x.shape
    tokens, dim = height * width, c // num_heads
    x = x.permute(0, 2, 3, 1).reshape(-1, tokens, num_heads, dim)
    return x.transpose(1, 2).reshape(-1, tokens, dim)


def from_heads(x: Tensor, num_heads: int, height: int, width: int) -> Tensor:
    """The inverse of `to_heads`: [b·h, n, d] → [b, h·d, H, W].

    Args:
        x: result of all heads.
        num_heads: h.
        height: rows of the map.
        width: columns of the map.
    """
    dim = x.shape[-1]
    x = x.reshape(-1, num_heads, height * width, dim).transpose(1, 2)
    return x.reshape(-1, height, width, num_heads * dim).permute(0, 3, 1, 2)
