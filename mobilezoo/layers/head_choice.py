"""Mixture-of-head gates (Jin et al., arXiv:2410.11842, section 3.2): heads weighed per token, weak ones left out.

Shapes: b batch, h heads, c heads to choose from.
"""

from typing import Any

import torch
from torch import Tensor, nn

STEEP = 1e4


class HeadGates(nn.Module):
    """A weight per head and position from the input map: [b, dim, H, W] → [b, h, H, W].

    The first `shared` heads always count; of the others each position takes its `routed` strongest (0: there are no
    others). In training `unbalance` holds how unevenly the last batch took them, for the load-balancing loss.
    """

    def __init__(self, dim: int, num_heads: int, shared: int, routed: int) -> None:
        super().__init__()
        rest = num_heads - shared
        if shared < 2 or not (0 < routed <= rest or routed == rest == 0):
            raise ValueError(f"{num_heads} heads need 2 shared ones or more, and routed ones up to the rest")
        self.shared, self.routed = shared, routed
        self.within = nn.Conv2d(dim, shared, 1, bias=False)
        self.choice = nn.Conv2d(dim, rest, 1, bias=False) if routed else None
        self.balance = nn.Conv2d(dim, 2, 1, bias=False) if routed else None
        self.unbalance: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files are without the last batch's value, whose graph cannot be copied."""
        return self.__dict__ | {"unbalance": None}

    def forward(self, x: Tensor) -> Tensor:
        shared = self.within(x).softmax(dim=1) * float(self.shared)
        if self.choice is None or self.balance is None:
            return shared
        gates = self.choice(x).softmax(dim=1)
        taken = strongest(gates.detach(), self.routed)
        if self.training:
            self.unbalance = unbalance(gates, taken)
        kept = gates * taken
        total = kept.mean(dim=1, keepdim=True) * (gates.shape[1] / self.routed)
        balance = self.balance(x).softmax(dim=1) * 2.0
        routed = kept / total.clamp(min=torch.finfo(total.dtype).eps)
        return torch.cat([shared * balance.narrow(1, 0, 1), routed * balance.narrow(1, 1, 1)], dim=1)


def unbalance(gates: Tensor, taken: Tensor) -> Tensor:
    """Load-balancing loss of one layer: Σ over heads of the mean weight times how often the head counts.

    Args:
        gates: weights [b, c, H, W], which sum to 1 over the heads.
        taken: mask of the same shape, 1 where a head counts; no gradient flows through it.

    Returns:
        A number, as many as a position takes where all heads weigh and count alike.
    """
    shares = gates.mean((0, 2, 3)) * taken.mean((0, 2, 3))
    return shares.mean() * float(gates.shape[1] ** 2)


def strongest(gates: Tensor, count: int) -> Tensor:
    """Mask [b, c, H, W]: 1 where a channel is among the `count` largest of its position, else 0.

    By how many others are larger, counted in steep ramps: phones have no sorting, and no comparisons in int8.

    Args:
        gates: positive weights [b, c, H, W].
        count: channels kept per position, from 1 to c.
    """
    _, channels, height, width = gates.shape
    rows = gates.permute(0, 2, 3, 1).reshape(-1, height * width, channels)
    larger = rows.reshape(-1, height * width, 1, channels) - rows.reshape(-1, height * width, channels, 1)
    larger = ((larger * STEEP).clamp(-1, 1) * STEEP).relu().clamp(-1, 1).mean(dim=-1) * float(channels)
    kept = (float(count) - larger).relu().clamp(-1, 1)  # XNNPACK knows -1 to 1, not 0 to 1
    return kept.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
