"""Layers with weights or windows: convolutions, pooling, matrix products, resampling."""

import torch
import torch.nn.functional as F

from mobilezoo_export.aimodel.arguments import Arguments, operation


@operation("conv2d")
def conv2d(a: Arguments) -> torch.Tensor:
    """Operands: input, weight, stride, dilation, groups; padding is an operation of its own."""
    return F.conv2d(a.tensor(0), a.tensor(1), None, a.integers(2), 0, a.integers(3), a.integer(4))


@operation("conv_transpose2d")
def conv_transpose2d(a: Arguments) -> torch.Tensor:
    """Operands: input, weight, stride, padding, dilation, output padding, groups."""
    padding = a.integers(3)
    if len(padding) == 4:  # before and after each axis
        if padding[0] != padding[1] or padding[2] != padding[3]:
            raise NotImplementedError(f"conv_transpose2d with a padding of {padding}")
        padding = padding[::2]
    extra, groups, dilation = a.integers(5), a.integer(6), a.integers(4)
    return F.conv_transpose2d(a.tensor(0), a.tensor(1), None, a.integers(2), padding, extra, groups, dilation)


@operation("max_pool_2d")
def max_pool_2d(a: Arguments) -> torch.Tensor:
    """Operands: input, kernel size, stride, dilation, whether a last window may reach over the edge."""
    kernel, stride, dilation, over = a.integers(1), a.integers(2), a.integers(3), bool(a.integer(4))
    pooled: torch.Tensor = F.max_pool2d(a.tensor(0), kernel, stride, 0, dilation, over)
    return pooled


@operation("sum_pool_2d")
def sum_pool_2d(a: Arguments) -> torch.Tensor:
    """Operands: input, kernel size, stride, dilation. Each channel is convolved with ones."""
    x = a.tensor()
    ones = torch.ones(x.shape[1], 1, *a.integers(1), dtype=x.dtype)
    return F.conv2d(x, ones, None, a.integers(2), 0, a.integers(3), x.shape[1])


@operation("batch_matmul")
def batch_matmul(a: Arguments) -> torch.Tensor:
    return torch.matmul(a.tensor(0), a.tensor(1))


@operation("interpolate")
def interpolate(a: Arguments) -> torch.Tensor:
    """Each axis on its own: coordinate = (index + 0.5 - offset) / scale - 0.5, held inside the axis."""
    x, mode = a.tensor(), a.chosen("interpolation_mode")
    scales, offsets = a.tensor(2).tolist(), a.tensor(3).tolist()
    for axis, size in enumerate(a.integers(1)):
        if size == x.shape[axis] and scales[axis] == 1 and offsets[axis] == 0:
            continue
        place = (torch.arange(size, dtype=torch.float32) + 0.5 - offsets[axis]) / scales[axis] - 0.5
        place = place.clamp(0, x.shape[axis] - 1)
        if mode == "nearest_neighbor":
            x = x.index_select(axis, place.round().long())
            continue
        low = place.floor().long()
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        share = (place - low).reshape([-1 if i == axis else 1 for i in range(x.dim())])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x
