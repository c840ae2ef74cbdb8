"""LightNet's attention: keys weighed over the positions, places that turn, a class token that does not."""

import pytest
import torch

from mobilezoo.layers.light_attention import LightAttention
from mobilezoo.models.fuse import relative_difference


def _written_out(layer: LightAttention, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The same, position by position: a weight per key channel, rotated by the places of query and key."""
    n, dim = x.shape[2] * x.shape[3], x.shape[1]
    q, k, v = (part.flatten(2)[0].t() for part in layer.qkv(x))  # n dim
    q, k = torch.nn.functional.silu(q), k.softmax(dim=0)
    speeds = 1.0 / 10000 ** torch.linspace(0, 1, dim // layer.num_heads // 4)
    first = int(layer.class_token)
    places = [(0.0, 0.0)] * first + [(float(i), float(j)) for i in range(rows) for j in range(columns)]
    angles = torch.stack([torch.cat([i * speeds, j * speeds]) for i, j in places])  # n d/2
    out = torch.zeros(n, dim)
    for head in range(layer.num_heads):
        part = slice(head * dim // layer.num_heads, (head + 1) * dim // layer.num_heads)
        pairs = [torch.complex(*t[:, part].chunk(2, dim=1)) * torch.exp(1j * angles) for t in (q, k)]
        weights = torch.einsum("nd,md->nm", pairs[0], pairs[1].conj()).real
        out[:, part] = weights @ v[:, part]
    mapped = out.t().reshape(1, dim, *x.shape[2:])
    return layer.proj(layer.norm(mapped) * layer.gate(x))


@pytest.mark.parametrize("class_token", [False, True])
@torch.no_grad()
def test_it_is_the_sum_over_positions_also_fused(class_token: bool) -> None:
    torch.manual_seed(0)
    layer = LightAttention(16, 2, class_token)
    x = torch.randn(1, 16, 13, 1) if class_token else torch.randn(1, 16, 3, 4)
    expected = _written_out(layer, x, 3, 4)
    assert relative_difference(layer(x, (3, 4)), expected) <= 1e-5
    assert relative_difference(layer.fuse()(x, (3, 4)), expected) <= 1e-5
