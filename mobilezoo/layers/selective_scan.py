"""The selective scan of Mamba with one state per channel, as a fixed graph without loops.

Source: Mamba (arXiv:2312.00752 §3.2) in the two-dimensional, bidirectional form of MobileMamba (arXiv:2411.15941 §3.2)
over VMamba's block (arXiv:2401.10166 §4). With one state, the scan is a first-order recurrence per channel,

    h_t = a_t · h_{t-1} + b_t,    a_t = exp(Δ_t · A) in (0, 1),    b_t = Δ_t · B_t · u_t,    y_t = C_t · h_t + D · u_t.

It is computed in chunks (reduce, scan the chunks, scan inside them; Blelloch, "Prefix sums and their applications",
1990): all chunks advance together, step by step, to their last state; the same rule runs over those; then all chunks
start again from where their predecessor ended. That is about three multiplications per element whatever the length,
where log-doubling spends two per element and doubling. It only ever multiplies factors below one: no division, nothing
that grows with the length, and products small enough to become slow subnormal numbers stay few.

Shapes: b batch, l sequence, n chunks, t steps in a chunk, d channels. Channels are last, so that a step of all chunks
reads whole vectors, and so that phone runtimes, which keep channels last, need no transposition.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.foldable import ConvNorm

MOST_STEPS = 16
"""Longest chunk: few, large operations for PyTorch."""
MOST_STEPS_IN_FILES = 5
"""XNNPACK joins at most five tensors at once; longer chunks would leave the phone's fast path."""


def sequential_recurrence(a_bld: Tensor, b_bld: Tensor, reverse: bool = False) -> Tensor:
    """The recurrence as it is written, one position after the other: the reference for tests and benchmarks.

    Args:
        a_bld: decays [b, l, d].
        b_bld: inputs [b, l, d].
        reverse: start at the end of the sequence.

    Returns:
        States [b, l, d].
    """
    h = torch.zeros_like(b_bld[:, 0])
    order = range(b_bld.shape[1])
    states = {}
    for t in reversed(order) if reverse else order:
        h = a_bld[:, t] * h + b_bld[:, t]
        states[t] = h
    return torch.stack([states[t] for t in order], dim=1)


def linear_recurrence(a_bld: Tensor, b_bld: Tensor, reverse: bool = False) -> Tensor:
    """h_t = a_t · h_{t-1} + b_t from h = 0, along dimension 1.

    The gradient is the same recurrence in the other direction, so nothing but `a` and `h` is kept for it.

    Args:
        a_bld: decays a [b, l, d], between 0 and 1.
        b_bld: inputs b [b, l, d].
        reverse: start at the end of the sequence.

    Returns:
        States h [b, l, d].
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return _scan(a_bld, b_bld, reverse, MOST_STEPS_IN_FILES)
    states: Tensor = _Recurrence.apply(a_bld, b_bld, reverse)
    return states


class _Recurrence(torch.autograd.Function):
    """The recurrence with its gradient: dh_t = g_t + a_{t+1} · dh_{t+1}, db_t = dh_t, da_t = dh_t · h_{t-1}."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
        return _scan(a, b, reverse, MOST_STEPS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.reverse = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        a, h = ctx.saved_tensors
        dh = linear_recurrence(_delay(a, not ctx.reverse), grads[0], not ctx.reverse)
        return dh * _delay(h, ctx.reverse), dh, None


def _scan(a: Tensor, b: Tensor, reverse: bool, most_steps: int) -> Tensor:
    """The recurrence over [b, l, d] or [b, l, 1, d], in chunks; the recursion handles the chunks' last states."""
    (batch, length, *one), dim = b.shape[:-1], b.shape[-1]
    _, steps = plan(length, most_steps)
    if steps == length:
        return torch.cat(_walk(a.split(1, 1), b.split(1, 1), reverse), 1)
    chunks = math.ceil(length / steps)
    missing = chunks * steps - length
    if missing:  # zeros at the end: the forward scan never returns from there, the reverse one starts there with 0
        a, b = (F.pad(x, (0, 0, *[0, 0] * len(one), 0, missing)) for x in (a, b))
    decays, inputs = (x.reshape(batch, chunks, steps, dim).split(1, 2) for x in (a, b))
    last = _walk(decays, inputs, reverse)[0 if reverse else -1]
    ends = _scan(functools.reduce(torch.mul, decays), last, reverse, most_steps)
    h_bntd = torch.cat(_walk(decays, inputs, reverse, _delay(ends, reverse)), 2)
    h = h_bntd.reshape(batch, chunks * steps, *one, dim)
    return h[:, :length] if missing else h


def _walk(a: tuple[Tensor, ...], b: tuple[Tensor, ...], reverse: bool, start: Tensor | None = None) -> list[Tensor]:
    """The state after each step, in the order of the positions."""
    states, h = list(b), start
    for t in range(len(a) - 1, -1, -1) if reverse else range(len(a)):
        h = states[t] = b[t] if h is None else torch.addcmul(b[t], a[t], h)
    return states


def _delay(x: Tensor, reverse: bool) -> Tensor:
    """Every position's predecessor in scan order, along dimension 1; the first gets zero."""
    rest = [0, 0] * (x.ndim - 2)
    return F.pad(x[:, 1:], (*rest, 0, 1)) if reverse else F.pad(x[:, :-1], (*rest, 1, 0))


@functools.cache
def plan(length: int, most_steps: int) -> tuple[int, int]:
    """Chunk size of the smallest graph for a sequence: cuts, products, sums and joins are counted.

    Args:
        length: positions of the sequence.
        most_steps: longest chunk allowed.

    Returns:
        (operators of the graph, steps per chunk).
    """
    best = (4 * length, length) if length <= most_steps else (1 << 62, length)
    for steps in range(2, min(most_steps, length - 1) + 1):
        padding = 3 if length % steps else 0
        best = min(best, (7 * steps + 8 + padding + plan(math.ceil(length / steps), most_steps)[0], steps))
    return best


class SelectiveScan2d(nn.Module):
    """Gated selective scan of a map in raster order, forwards and backwards, summed: [b, dim, H, W] → the same shape.

    The recurrence runs in float32 at least. No direction is ever flipped: all but the recurrence is pointwise.
    Initial values follow the official code ("v2"): A = -1, D = 1, weights and bias of Δ uniform in [0, 0.1).
    """

    def __init__(self, dim: int, expand: float, kernel: int = 3, norm_eps: float = 1e-5) -> None:
        super().__init__()
        inner = int(expand * dim)
        self.rank = math.ceil(dim / 16)
        self.proj_in = ConvNorm(dim, inner)
        self.proj_gate = ConvNorm(dim, inner)
        self.conv = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.act = nn.SiLU()
        self.proj_scan = nn.Linear(inner, 2 * self.rank + 4, bias=False)
        self.proj_delta = nn.ModuleList(nn.Linear(self.rank, inner) for _ in range(2))
        self.a_log = nn.Parameter(torch.zeros(2, inner))
        self.skip = nn.Parameter(torch.ones(2, inner))
        self.norm = nn.LayerNorm(inner, eps=norm_eps)
        self.proj_out = ConvNorm(inner, dim)
        for parameter in self.proj_delta.parameters():
            nn.init.uniform_(parameter, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        u_bchw = self.act(self.conv(self.proj_in(x)))
        batch, inner, height, width = u_bchw.shape
        u_bld = u_bchw.permute(0, 2, 3, 1).reshape(batch, height * width, inner)
        y_bld = self.norm(self._both_directions(u_bld))
        y_bchw = y_bld.reshape(batch, height, width, inner).permute(0, 3, 1, 2)
        return self.proj_out(self.act(self.proj_gate(x)) * y_bchw)

    def _both_directions(self, u_bld: Tensor) -> Tensor:
        rank = self.rank
        ahead, back, b_ahead, b_back, c_ahead, c_back = self.proj_scan(u_bld).split([rank, rank, 1, 1, 1, 1], dim=-1)
        wide = u_bld.to(torch.promote_types(u_bld.dtype, torch.float32))
        seen = []
        for i, (low_rank, b, c) in enumerate(((ahead, b_ahead, c_ahead), (back, b_back, c_back))):
            delta = softplus(self.proj_delta[i](low_rank).to(wide.dtype))
            decay = torch.exp(delta * -self.a_log[i].to(wide.dtype).exp())
            seen.append(linear_recurrence(decay, delta * wide * b, reverse=i == 1) * c)
        y = seen[0] + seen[1] + wide * self.skip.sum(0)
        return y.to(u_bld.dtype)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x). Files get plain steps: ONNX Runtime's own operator is slower, and XNNPACK has none."""
    if torch.compiler.is_exporting():
        return F.relu(x) + torch.log1p(torch.exp(-x.abs()))
    return F.softplus(x)
