"""Fourier transforms as matrix products equal PyTorch's, for even, odd and unequal sides."""

import pytest
import torch

from mobilezoo.layers.frequency import irfft2, rfft2


@pytest.mark.parametrize("size", [(14, 14), (7, 7), (8, 5), (5, 8), (1, 6), (9, 1)])
def test_both_directions_equal_pytorchs(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    expected = torch.fft.rfft2(x, norm="ortho")
    real, imag = rfft2(x)
    torch.testing.assert_close(torch.complex(real, imag), expected, rtol=1e-5, atol=1e-5)
    changed = torch.complex(torch.randn_like(real), torch.randn_like(imag))
    back = torch.fft.irfft2(changed, s=size, norm="ortho")
    torch.testing.assert_close(irfft2(changed.real, changed.imag, size[1]), back, rtol=1e-5, atol=1e-5)
