"""The two-dimensional Fourier transform of real maps as products with constant matrices, in real numbers.

Phone formats have no complex tensors. Both directions are orthonormal, as `torch.fft.rfft2(norm="ortho")`, for even and
odd sides; the half spectrum [b, c, H, W // 2 + 1] is a pair (real, imaginary).
"""

import math

import torch
from torch import Tensor


def rfft2(x: Tensor) -> tuple[Tensor, Tensor]:
    """Real map [b, c, H, W] → (real, imaginary) of its half spectrum."""
    height, width = x.shape[-2:]
    cos_w, sin_w = _waves(width, width // 2 + 1, x)
    real, imag = torch.matmul(x, cos_w), -torch.matmul(x, sin_w)
    cos_h, sin_h = _waves(height, height, x)
    # (cos - i sin)(real + i imag)
    return (
        torch.matmul(cos_h, real) + torch.matmul(sin_h, imag),
        torch.matmul(cos_h, imag) - torch.matmul(sin_h, real),
    )


def irfft2(real: Tensor, imag: Tensor, width: int) -> Tensor:
    """Inverse of `rfft2`: half spectrum → real map [b, c, H, width].

    Args:
        real: real part [b, c, H, width // 2 + 1].
        imag: imaginary part of the same shape.
        width: columns of the map, which the half spectrum leaves open (even or odd).
    """
    height = real.shape[-2]
    cos_h, sin_h = _waves(height, height, real)
    # (cos + i sin)(real + i imag)
    along_real = torch.matmul(cos_h, real) - torch.matmul(sin_h, imag)
    along_imag = torch.matmul(cos_h, imag) + torch.matmul(sin_h, real)
    cos_w, sin_w = _waves(width, width // 2 + 1, real)
    # every frequency but the first and, for even widths, the last stands for its mirror image too
    twice = torch.full((width // 2 + 1, 1), 2.0, dtype=real.dtype, device=real.device)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    return torch.matmul(along_real, cos_w.t() * twice) - torch.matmul(along_imag, sin_w.t() * twice)


def _waves(size: int, frequencies: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [size, frequencies], over the square root of `size`; angles are exact modulo a full turn."""
    positions = torch.arange(size, device=like.device)
    turns = (positions[:, None] * torch.arange(frequencies, device=like.device)[None, :]) % size
    angles = turns.double() * (2 * math.pi / size)
    scale = size**-0.5
    return (angles.cos() * scale).to(like.dtype), (angles.sin() * scale).to(like.dtype)
