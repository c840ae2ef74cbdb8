"""Convolutions with an affine neighbour, as modules whose deployment form is one convolution.

Each has `fuse()`, the protocol of `timm.utils.reparameterize_model`: it returns a new, equal (in eval mode) module and
leaves itself untouched.
"""

import torch
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution → BatchNorm."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_chs, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fuse(self) -> nn.Conv2d:
        scale, shift = affine_of(self.norm)
        weight, bias = _double(self.conv)
        return with_weights(self.conv, weight * scale[:, None, None, None], bias * scale + shift)


class NormConv(nn.Module):
    """Norm → 1×1 convolution: the pre-norm of a residual branch.

    A BatchNorm folds into the convolution, which is exact because a 1×1 kernel never meets padding; any other norm
    stays, and `fuse()` returns the module itself.
    """

    def __init__(self, norm: nn.Module, in_chs: int, out_chs: int, bias: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.conv = nn.Conv2d(in_chs, out_chs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))

    def fuse(self) -> nn.Module:
        if not isinstance(self.norm, nn.BatchNorm2d):
            return self
        return fold_norm_before(self.norm, self.conv)


class SplitConv(nn.Module):
    """Norm (or none) → 1×1 convolution whose output is cut into equal parts, such as queries, keys and values.

    The deployment form is one convolution per part, with a BatchNorm folded in: it needs no cut, which phone runtimes
    answer with a copy or by leaving their accelerated part.
    """

    def __init__(self, norm: nn.Module | None, in_chs: int, part_chs: int, parts: int, bias: bool = False) -> None:
        super().__init__()
        self.parts = parts
        self.norm = nn.Identity() if norm is None else norm
        self.conv = nn.Conv2d(in_chs, parts * part_chs, 1, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.conv(self.norm(x)).chunk(self.parts, dim=1)

    def fuse(self) -> "ParallelConvs":
        norm: nn.Module = self.norm
        conv = self.conv
        if isinstance(self.norm, nn.BatchNorm2d):
            norm, conv = nn.Identity(), fold_norm_before(self.norm, conv)
        weights = conv.weight.detach().chunk(self.parts)
        biases = (None,) * self.parts if conv.bias is None else conv.bias.detach().chunk(self.parts)
        return ParallelConvs(norm, [with_weights(conv, *pair) for pair in zip(weights, biases, strict=True)])


class ParallelConvs(nn.Module):
    """Norm → several convolutions of the same input: the deployment form of `SplitConv`."""

    def __init__(self, norm: nn.Module, convs: list[nn.Conv2d]) -> None:
        super().__init__()
        self.norm = norm
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.norm(x)
        return tuple(conv(x) for conv in self.convs)


class ScaledConv(nn.Module):
    """1×1 convolution without bias → LayerScale (a learned factor per channel, CaiT arXiv:2103.17239 §2)."""

    def __init__(self, in_chs: int, out_chs: int, init_scale: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 1, bias=False)
        self.gamma = nn.Parameter(torch.full((out_chs,), init_scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gamma.reshape(1, -1, 1, 1)

    def fuse(self) -> nn.Conv2d:
        weight, _ = _double(self.conv)
        return with_weights(self.conv, weight * self.gamma.detach().double()[:, None, None, None], None)


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift) per channel, float64, of a BatchNorm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def fold_norm_before(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """BatchNorm → 1×1 convolution as one convolution with bias.

    Args:
        norm: affine norm with running statistics.
        conv: 1×1 convolution of the norm's output; zero padding would break the equality.
    """
    scale, shift = affine_of(norm)
    weight, bias = _double(conv)
    return with_weights(conv, weight * scale[None, :, None, None], bias + weight[:, :, 0, 0] @ shift)


def with_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Make a convolution of the same geometry, dtype and device with other weights.

    Args:
        conv: the original, which stays as it is.
        weight: [out, in / groups, kh, kw]; `out` may differ from the original's.
        bias: [out], or None for no bias.
    """
    old = conv.weight
    new = nn.Conv2d(
        conv.in_channels,
        weight.shape[0],
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=bias is not None,
        device=old.device,
        dtype=old.dtype,
    )
    new.weight.data.copy_(weight)
    if bias is not None and new.bias is not None:
        new.bias.data.copy_(bias)
    return new.train(conv.training).requires_grad_(old.requires_grad)


def _double(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    weight = conv.weight.detach().double()
    return weight, weight.new_zeros(weight.shape[0]) if conv.bias is None else conv.bias.detach().double()
