"""One level of the Haar wavelet transform, and a depthwise convolution between its analysis and synthesis.

Source: wavelet convolutions (arXiv:2407.05848 §3), as in the WTE-Mamba part of MobileMamba (arXiv:2411.15941 §3.2).

The four bands stay apart instead of interleaved in one tensor, so that the synthesis is sums, differences and three
concatenations. As a grouped transposed convolution it would become two operators per channel in LiteRT (233 operators
instead of 27 for 112 channels); the sums are faster in training, ONNX Runtime and LiteRT alike.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BANDS = 4
"""Mean, change between rows, change between columns, change between both."""


def haar_filters() -> Tensor:
    """The orthonormal 2×2 filters, [4, 2, 2], in the order of BANDS; their own inverse."""
    mean, change = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    pairs = ((mean, mean), (change, mean), (mean, change), (change, change))
    return torch.stack([torch.outer(rows, columns) / 2 for rows, columns in pairs])


def haar_synthesis(mean: Tensor, rows: Tensor, columns: Tensor, both: Tensor) -> Tensor:
    """Map [b, c, 2h, 2w] whose Haar analysis the four bands [b, c, h, w] are, times two (the filters hold halves).

    Args:
        mean: mean of each 2×2 square.
        rows: change between its rows.
        columns: change between its columns.
        both: change between both.
    """
    batch, chs, height, width = mean.shape
    lines = []
    for level, change in ((mean + rows, columns + both), (mean - rows, columns - both)):
        pixels = torch.cat([level + change, level - change], 1).permute(0, 2, 3, 1)
        lines.append(pixels.reshape(batch, height, 2 * width, chs))
    return torch.cat(lines, 2).reshape(batch, 2 * height, 2 * width, chs).permute(0, 3, 1, 2)


class HaarBand(nn.Module):
    """One band of a map, filtered and scaled: [b, dim, 2h, 2w] → [b, dim, h, w], ready for `haar_synthesis`.

    Both filters are constants. They are frozen parameters because official checkpoints hold them as such (strict
    loading, published parameter counts). Of the synthesis filter only the size of its entries is read, as a factor;
    its signs are those of `haar_synthesis`.
    """

    def __init__(self, dim: int, kernel: int, band: int, init_scale: float) -> None:
        super().__init__()
        taps = haar_filters()[band].repeat(dim, 1, 1, 1)
        self.analysis = nn.Conv2d(dim, dim, 2, stride=2, groups=dim, bias=False)
        self.analysis.weight = nn.Parameter(taps.clone(), requires_grad=False)
        self.synthesis = nn.Parameter(taps.clone(), requires_grad=False)
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        self.scale = nn.Parameter(torch.full((dim, 1, 1, 1), init_scale))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.scale * self.synthesis.abs().mean((1, 2, 3), keepdim=True)
        # scaling the kernel instead of the map saves an operator per band in files
        return F.conv2d(self.analysis(x), self.conv.weight * gain, padding=self.conv.padding, groups=self.conv.groups)


class WaveletConv(nn.Module):
    """Depthwise convolution of every Haar band: a receptive field of twice the kernel, [b, dim, H, W] → the same.

    Odd maps get a row below or a column at the right, which is cut off again.
    """

    def __init__(self, dim: int, kernel: int, init_scale: float = 0.1) -> None:
        super().__init__()
        self.bands = nn.ModuleList(HaarBand(dim, kernel, band, init_scale) for band in range(BANDS))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        odd = height % 2 or width % 2
        if odd:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        y = haar_synthesis(*[band(x) for band in self.bands])
        return y[:, :, :height, :width] if odd else y
