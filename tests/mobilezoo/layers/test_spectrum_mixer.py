"""The cosine transform as products, and the bands that its weights let through."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn

from mobilezoo.layers.spectrum_mixer import SpectrumMixer, transformed


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (1, 4)])
def test_the_transform_is_the_orthonormal_dct_and_back(size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size)
    spectrum = transformed(x)
    expected = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(transformed(spectrum, inverse=True), x, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_weights_of_one_half_halve_every_band() -> None:
    mixer = SpectrumMixer(8)
    for tensor in (mixer.excite.weight, mixer.excite.bias, mixer.proj.bias):
        assert tensor is not None
        tensor.zero_()
    nn.init.dirac_(mixer.proj.weight)
    x = torch.randn(1, 8, 5, 6)
    torch.testing.assert_close(mixer(x), x / 2, atol=1e-5, rtol=1e-5)
