"""Mixing in the frequency domain with bands weighted per image (Hu et al., "Dynamic Spectrum Mixer", arXiv:2309.06721).

From the paper's text: tokens are mixed by a discrete cosine transform (DCT), between whose two directions a generated
weight brings out informative bands and suppresses others. The transform is orthonormal and written as products with
constant matrices along either side; channels come last, so that every product is one of whole rows. What the text at
hand leaves open and is ours: the weights are 1×1 → GELU → 1×1 → sigmoid of the spectrum, behind which stands a
projection. Shapes: b batch, c channels.
"""

import math

import torch
from torch import Tensor, nn

REDUCTION = 4
"""Channels over those inside the generator of weights."""
PARTS = 2
"""Groups of channels in a transform. LiteRT would turn a single map for a product with a constant matrix."""


class SpectrumMixer(nn.Module):
    """project(DCT⁻¹(weights(DCT x) · DCT x)); [b, dim, H, W] in and out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(dim, dim // REDUCTION, 1)
        self.act = nn.GELU()
        self.excite = nn.Conv2d(dim // REDUCTION, dim, 1)
        self.gate = nn.Sigmoid()
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = transformed(x)
        weights = self.gate(self.excite(self.act(self.squeeze(spectrum))))
        return self.proj(transformed(spectrum * weights, inverse=True))


def transformed(x: Tensor, inverse: bool = False) -> Tensor:
    """Transform a map along both sides; the output has the shape of `x`.

    Args:
        x: map or spectrum [b, c, H, W], c an even number.
        inverse: from a spectrum back to a map.
    """
    channels, height, width = (int(side) for side in x.shape[1:])
    tall, wide = cosines(height, x), cosines(width, x)
    if inverse:
        tall, wide = tall.t(), wide.t()
    part = channels // PARTS
    rows = x.permute(0, 2, 3, 1).reshape(-1, PARTS, part).transpose(0, 1).reshape(-1, height, width * part)
    rows = _product(tall, rows).reshape(-1, width, part)
    rows = _product(wide, rows).reshape(PARTS, -1, part).transpose(0, 1)
    return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def _product(table: Tensor, rows: Tensor) -> Tensor:
    """[n, n] times every matrix of [m, n, k]."""
    return torch.bmm(table.contiguous().expand(rows.shape[0], -1, -1), rows)


def cosines(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix [frequencies, positions].

    Args:
        size: positions n, as many as frequencies.
        like: tensor whose dtype and device the matrix gets.
    """
    steps = torch.arange(size, device=like.device, dtype=torch.float64)
    table = torch.cos(math.pi / size * (steps[None, :] + 0.5) * steps[:, None]) * (2.0 / size) ** 0.5
    return torch.cat([table[:1] * 0.5**0.5, table[1:]]).to(like.dtype)
