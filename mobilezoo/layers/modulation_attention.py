"""Single-head modulation attention (Zheng, "iFormer", ICLR 2025, arXiv:2501.15369, section 3.3).

One head needs no cutting of channels into heads, and a gate makes up for what more heads would add: the attended values
are multiplied by it before the projection. Values and gate pass a sigmoid, as in the official code. Shapes: b batch,
c channels, n = H·W positions.
"""

import copy

import torch
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm, with_weights


class ModulationAttention(nn.Module):
    """project(attention(q, k, v) · gate), every projection followed by a BatchNorm; [b, dim, H, W] in and out.

    Args:
        dim: channels of input, values, gate and output.
        reduction: those channels over the channels of queries and keys.
    """

    def __init__(self, dim: int, reduction: int) -> None:
        super().__init__()
        inner = dim // reduction
        self.scale = inner**-0.5
        self.q: nn.Module = ConvNorm(dim, inner)
        self.k = ConvNorm(dim, inner)
        self.v_gate: nn.Module = ConvNorm(dim, 2 * dim)
        self.gate: nn.Module | None = None
        self.act = nn.Sigmoid()
        self.proj = ConvNorm(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.gate is None:
            v_map, gate = self.v_gate(x).chunk(2, dim=1)
        else:
            v_map, gate = self.v_gate(x), self.gate(x)
        q, k, v = (_rows(part) for part in (self.q(x), self.k(x), self.act(v_map)))  # b n c
        if self.scale != 1.0:
            q = q * self.scale
        out = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1), v)
        return self.proj(out.reshape(-1, height, width, out.shape[-1]).permute(0, 3, 1, 2) * self.act(gate))

    def fuse(self) -> "ModulationAttention":
        """Values and gate as convolutions of their own, norms folded, the scale folded into the queries."""
        fused = copy.deepcopy(self)
        if isinstance(self.q, ConvNorm) and isinstance(self.v_gate, ConvNorm):
            fused.q = self.q.fuse()
            for tensor in fused.q.parameters():
                tensor.data *= self.scale
            fused.scale = 1.0
            joint = self.v_gate.fuse()
            assert joint.bias is not None
            weights, biases = joint.weight.detach().chunk(2), joint.bias.detach().chunk(2)
            fused.v_gate, fused.gate = (with_weights(joint, *part) for part in zip(weights, biases, strict=True))
        return fused


def _rows(x: Tensor) -> Tensor:
    """[b, c, H, W] → [b, n, c]."""
    channels, height, width = x.shape[1:]
    return x.permute(0, 2, 3, 1).reshape(-1, height * width, channels)
