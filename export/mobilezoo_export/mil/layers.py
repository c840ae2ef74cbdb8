"""Layers with weights or windows: convolutions, pooling, norms, linear algebra, resampling."""

import math

import torch
import torch.nn.functional as F

from mobilezoo_export.mil.arguments import Arguments, operation


def padding(a: Arguments, kernel: list[int], strides: list[int], dilations: list[int], sizes: list[int]) -> list[int]:
    """Compute explicit padding from an operation's `pad_type`.

    Args:
        a: arguments of the operation.
        kernel: kernel size per spatial axis.
        strides: stride per spatial axis.
        dilations: dilation per spatial axis.
        sizes: input size per spatial axis.

    Returns:
        [low, high, low, high, ...], first spatial axis first.
    """
    kind = a.text("pad_type", "valid")
    if kind == "valid":
        return [0] * (2 * len(kernel))
    if kind == "custom":
        return a.integers("pad")
    pads = []
    for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (length - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        pads += [large, small] if kind == "same_lower" else [small, large]
    return pads


def torch_order(pads: list[int]) -> list[int]:
    """Reorder padding from MIL's order (first axis first) to that of `F.pad` (last axis first)."""
    pairs = [pads[i : i + 2] for i in range(0, len(pads), 2)]
    return [value for pair in reversed(pairs) for value in pair]


@operation("conv")
def conv(a: Arguments) -> torch.Tensor:
    x, weight = a.tensor(), a.tensor("weight")
    rank = x.dim() - 2
    strides, dilations = a.integers("strides", [1] * rank), a.integers("dilations", [1] * rank)
    pads = padding(a, list(weight.shape[2:]), strides, dilations, list(x.shape[2:]))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    padded = F.pad(x, torch_order(pads)) if any(pads) else x
    return convolve(padded, weight, a.maybe_tensor("bias"), strides, 0, dilations, a.integer("groups", 1))


@operation("conv_transpose")
def conv_transpose(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    rank = x.dim() - 2
    strides, dilations = a.integers("strides", [1] * rank), a.integers("dilations", [1] * rank)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    groups = a.integer("groups", 1)
    y = convolve(x, a.tensor("weight"), a.maybe_tensor("bias"), strides, 0, 0, groups, dilations)
    if a.text("pad_type", "valid") == "custom":
        y = F.pad(y, [-value for value in torch_order(a.integers("pad"))])
    return y


def _pool_window(a: Arguments) -> tuple[torch.Tensor, list[int], list[int], list[int], list[int]]:
    """Return input, kernel, strides, padding, and the extra padding of ceil mode at each end."""
    x, kernel = a.tensor(), a.integers("kernel_sizes")
    strides = a.integers("strides", [1] * len(kernel))
    pads = padding(a, kernel, strides, [1] * len(kernel), list(x.shape[2:]))
    extra = [0] * len(kernel)
    if a.flag("ceil_mode"):
        for i, (length, stride) in enumerate(zip(kernel, strides, strict=True)):
            extra[i] = -(x.shape[2 + i] + pads[2 * i] + pads[2 * i + 1] - length) % stride
    return x, kernel, strides, pads, extra


def _with_extra(pads: list[int], extra: list[int]) -> list[int]:
    return [value + (extra[i // 2] if i % 2 else 0) for i, value in enumerate(pads)]


@operation("max_pool")
def max_pool(a: Arguments) -> torch.Tensor:
    x, kernel, strides, pads, extra = _pool_window(a)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    pooled: torch.Tensor = pool(F.pad(x, torch_order(_with_extra(pads, extra)), value=-math.inf), kernel, strides)
    return pooled


@operation("avg_pool")
def avg_pool(a: Arguments) -> torch.Tensor:
    x, kernel, strides, pads, extra = _pool_window(a)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    reach = torch_order(_with_extra(pads, extra))
    averaged = pool(F.pad(x, reach), kernel, strides)
    without_padding = a.flag("exclude_padding_from_average")
    if not without_padding and not any(extra):
        return averaged
    # Divide by the share of the window that counts: real pixels, or real pixels and declared padding.
    counted = torch.ones_like(x[:1, :1])
    if not without_padding:
        counted = F.pad(counted, torch_order(pads), value=1.0)
        reach = torch_order([value for more in extra for value in (0, more)])
    return averaged / pool(F.pad(counted, reach), kernel, strides)


@operation("batch_norm")
def batch_norm(a: Arguments) -> torch.Tensor:
    statistics = a.tensor("mean"), a.tensor("variance"), a.maybe_tensor("gamma"), a.maybe_tensor("beta")
    return F.batch_norm(a.tensor(), *statistics, False, 0.0, a.number("epsilon", 1e-5))


@operation("instance_norm")
def instance_norm(a: Arguments) -> torch.Tensor:
    affine = a.maybe_tensor("gamma"), a.maybe_tensor("beta")
    return F.instance_norm(a.tensor(), None, None, *affine, True, 0.0, a.number("epsilon", 1e-5))


@operation("layer_norm")
def layer_norm(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    axes = [axis % x.dim() for axis in a.integers("axes", list(range(x.dim())))]
    centered = x - x.mean(axes, keepdim=True)
    y = centered * torch.rsqrt(centered.square().mean(axes, keepdim=True) + a.number("epsilon", 1e-5))
    shape = [x.shape[i] if i in axes else 1 for i in range(x.dim())]
    gamma, beta = a.maybe_tensor("gamma"), a.maybe_tensor("beta")
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


@operation("l2_norm")
def l2_norm(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    power = x.square().sum(tuple(range(max(0, x.dim() - 3), x.dim())), keepdim=True)
    return x * torch.rsqrt(power + a.number("epsilon", 1e-6))


@operation("linear")
def linear(a: Arguments) -> torch.Tensor:
    return F.linear(a.tensor(), a.tensor("weight"), a.maybe_tensor("bias"))


@operation("matmul")
def matmul(a: Arguments) -> torch.Tensor:
    x, y = a.tensor("x"), a.tensor("y")
    x = x.transpose(-1, -2) if a.flag("transpose_x") else x
    return x @ (y.transpose(-1, -2) if a.flag("transpose_y") else y)


@operation("einsum")
def einsum(a: Arguments) -> torch.Tensor:
    return torch.einsum(a.text("equation"), *a.tensors())


@operation("scaled_dot_product_attention")
def attention(a: Arguments) -> torch.Tensor:
    mask = a.maybe_tensor("attn_mask")
    return F.scaled_dot_product_attention(a.tensor("query"), a.tensor("key"), a.tensor("value"), attn_mask=mask)


@operation("upsample_nearest_neighbor")
def upsample_nearest(a: Arguments) -> torch.Tensor:
    """Integer factors only: MIL does not define which pixel a fractional position takes."""
    factors = a.number("scale_factor_height", 1), a.number("scale_factor_width", 1)
    if any(abs(factor - round(factor)) > 1e-4 for factor in factors):
        raise NotImplementedError(f"{a.name}: nearest upsampling by {factors} is not defined by Core ML")
    rows, columns = (round(factor) for factor in factors)
    return a.tensor().repeat_interleave(rows, -2).repeat_interleave(columns, -1)


@operation("upsample_bilinear")
def upsample_bilinear(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    factors = a.number("scale_factor_height", 1), a.number("scale_factor_width", 1)
    size = [math.floor(length * factor + 1e-4) for length, factor in zip(x.shape[-2:], factors, strict=True)]
    return F.interpolate(x, size, mode="bilinear", align_corners=a.flag("align_corners", True))


@operation("resize_bilinear")
def resize_bilinear(a: Arguments) -> torch.Tensor:
    size = [a.integer("target_size_height", 1), a.integer("target_size_width", 1)]
    mode = a.text("sampling_mode", "DEFAULT")
    if mode not in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS"):
        raise NotImplementedError(f"{a.name}: resize_bilinear with sampling mode {mode}")
    return F.interpolate(a.tensor(), size, mode="bilinear", align_corners=mode != "UNALIGN_CORNERS")
