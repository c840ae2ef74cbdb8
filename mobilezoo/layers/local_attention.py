"""Attention modules that weigh a feature map without products of queries and keys; input and output [B, C, H, W].

Sources: ELA (arXiv:2403.01123, section 3; no official code), ULSAM (WACV 2020, arXiv:2006.15102; code Nandan91/ULSAM,
no license stated), Gaussian adaptive attention (arXiv:2401.11143; code gioannides/Gaussian-Adaptive-Attention,
Apache-2.0).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.errors import InputSizeError


class EfficientLocalAttention(nn.Module):
    """ELA as in the paper: row and column means pass one shared 1-D convolution and GroupNorm, then gate the map.

    `per_group` is the number of channels per group of the convolution (1: depthwise). Groups that do not divide the
    channels give way to the largest number that does. Raises InputSizeError where the norm would see single values:
    maps of one row or column, where every channel is a group of its own.
    """

    def __init__(self, channels: int, kernel: int, per_group: int, norm_groups: int) -> None:
        super().__init__()
        groups = channels // math.gcd(channels, per_group)
        self.conv = nn.Conv2d(channels, channels, (kernel, 1), padding=(kernel // 2, 0), groups=groups, bias=False)
        self.norm = nn.GroupNorm(math.gcd(channels, norm_groups), channels)

    def forward(self, x: Tensor) -> Tensor:
        channels, width = x.shape[1], x.shape[3]
        if min(x.shape[2:]) < 2 and self.norm.num_groups == channels:
            raise InputSizeError(f"ela with a norm per channel needs maps of 2×2 pixels or more, got {_size(x)}")
        rows = torch.sigmoid(self.norm(self.conv(x.mean(3, keepdim=True))))
        # a row of means is the same memory as a column of them
        columns = torch.sigmoid(self.norm(self.conv(x.mean(2, keepdim=True).reshape(-1, channels, width, 1))))
        return x * rows * columns.reshape(-1, channels, 1, width)


class SubspaceAttention(nn.Module):
    """ULSAM: each of `groups` equal parts of the channels has a spatial map of its own, added as x + x · map.

    The official code runs the parts one by one; here they are grouped convolutions. Raises ValueError where the groups
    do not divide the channels.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"ulsam needs a multiple of {groups} channels, got {channels}")
        self.groups = groups
        self.dw = nn.Conv2d(channels, channels, 1, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels, momentum=0.9)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.point = nn.Conv2d(channels, groups, 1, groups=groups)
        self.norm2 = nn.BatchNorm2d(groups, momentum=0.9)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.register_buffer("spread", torch.ones(channels, 1, 1, 1), persistent=False)
        """A grouped 1×1 kernel that gives every channel its part's map."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        maps = self.act2(self.norm2(self.point(self.pool(self.act1(self.norm1(self.dw(x)))))))
        maps = maps.reshape(-1, self.groups, height * width).softmax(dim=-1).reshape(-1, self.groups, height, width)
        return x + x * F.conv2d(maps, self.spread, groups=self.groups)  # type: ignore[arg-type]


class GaussianAttention(nn.Module):
    """Weights along one axis from a product of Gaussians around the mean of each head's slice; they add up to 1.

    The product of the densities, divided by its sum, is a softmax of the summed exponents: no density underflows.
    Raises InputSizeError where a slice has one value, which has no variance.
    """

    def __init__(self, axis: int, heads: int, gaussians: int) -> None:
        super().__init__()
        self.axis, self.heads = axis, heads
        self.offsets = nn.Parameter(torch.zeros(heads, gaussians))
        self.widths = nn.Parameter(torch.randn(heads, gaussians).exp())

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[self.axis] // self.heads
        if size < 2:
            raise InputSizeError(
                f"gaussian attention of {self.heads} heads along axis {self.axis} needs {2 * self.heads} values there, "
                f"got {x.shape[self.axis]} in a map of {_size(x)}"
            )
        starts = [head * size for head in range(self.heads)]
        ends = [*starts[1:], x.shape[self.axis]]
        slices = [x.narrow(self.axis, a, b - a) for a, b in zip(starts, ends, strict=True)]
        return torch.cat([self._head(part, i) for i, part in enumerate(slices)], dim=self.axis)

    def _head(self, x: Tensor, head: int) -> Tensor:
        centered = x - x.mean(dim=self.axis, keepdim=True)
        variance = centered.square().sum(dim=self.axis, keepdim=True) * (1.0 / (x.shape[self.axis] - 1)) + 1e-8
        scale = variance.rsqrt()
        exponent = torch.zeros_like(x)
        for offset, width in zip(self.offsets[head], self.widths[head], strict=True):
            exponent = exponent - ((centered - offset) * scale).square() / (2.0 * width.square())
        return x * exponent.softmax(dim=self.axis)


def _size(x: Tensor) -> str:
    return f"{x.shape[2]}×{x.shape[3]} pixels"


class GaussianBlock(nn.Module):
    """Gaussian attention along the channels, then along the width, each added to its input."""

    def __init__(self, heads: tuple[int, int] = (4, 2), gaussians: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        axes = (1, -1)
        self.layers = nn.Sequential(
            *(GaussianAttention(a, h, g) for a, h, g in zip(axes, heads, gaussians, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x
