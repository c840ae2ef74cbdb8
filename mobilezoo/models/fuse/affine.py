"""The arithmetic of folding: y = scale * x + shift per channel, taken up by a linear layer on either side.

    after:   scale * (W x + b) + shift = (scale * W) x + (scale * b + shift)
    before:  W (scale * x + shift) + b = (W * scale) x + (W shift + b), where no zero padding lies between
In float64, rounded once: a tiny running variance makes the scale large.
"""

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from mobilezoo.models.fuse.trace import CONVS

Affine = tuple[Tensor, Tensor]
"""Per-channel scale and shift, float64."""


def affine_of(norm: nn.Module) -> Affine | None:
    """What a BatchNorm computes in eval mode; None where it normalizes with the batch's own statistics."""
    mean, var = _wide(norm, "running_mean"), _wide(norm, "running_var")
    if mean is None or var is None or not isinstance(norm.eps, float):
        return None
    scale = (var + norm.eps).rsqrt()
    if (weight := _wide(norm, "weight")) is not None:
        scale = scale * weight
    shift = -mean * scale
    if (bias := _wide(norm, "bias")) is not None:
        shift = shift + bias
    return scale, shift


def remainder(norm: nn.Module) -> nn.Module:
    """What is left of a norm once its scale and shift are folded: its activation, or nothing."""
    parts = [part for name in ("drop", "act") if not isinstance(part := getattr(norm, name, None), nn.Identity | None)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts) if parts else nn.Identity()


def absorb_after(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make `layer` compute scale * layer(x) + shift.

    Args:
        layer: linear layer or convolution, changed in place.
        scale: [out], float64.
        shift: [out], float64.
    """
    weight, bias = _wide(layer, "weight"), _wide(layer, "bias")
    assert weight is not None
    if isinstance(layer, nn.ConvTranspose2d):
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.reshape(layer.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    _set(layer, weight, shift if bias is None else bias * scale + shift)


def absorb_before(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make `layer` compute layer(scale * x + shift).

    Args:
        layer: linear layer or convolution that `takes_before` accepts, changed in place.
        scale: [in], float64.
        shift: [in], float64.
    """
    weight, bias = _wide(layer, "weight"), _wide(layer, "bias")
    assert weight is not None
    groups = int(getattr(layer, "groups", 1))
    per_output = [v.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0) for v in (scale, shift)]
    scale_oi, shift_oi = (v.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2)) for v in per_output)
    if bool(shift.any()):
        added = (weight * shift_oi).flatten(1).sum(1)
        bias = added if bias is None else bias + added
    _set(layer, weight * scale_oi, bias)


def takes_before(layer: nn.Module, shift: Tensor) -> bool:
    """Whether a shift of the layer's input stays a constant shift of its output: no zeros are padded in.

    Args:
        layer: any module; only linear layers and convolutions are accepted.
        shift: [in]; all zeros are no shift.
    """
    if isinstance(layer, nn.Linear):
        return True
    if not isinstance(layer, CONVS):
        return False
    if layer.padding_mode != "zeros" or not bool(shift.any()):
        return True
    if type(layer) is Conv2dSame or layer.padding == "same":
        return max(layer.kernel_size) == 1
    return layer.padding == "valid" or not any(layer.padding)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put another module wherever one stands in the tree.

    Args:
        model: root of the tree, changed in place.
        old: module to take out, at every place it has.
        new: module to put in.
    """
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def scaled_dim(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The dimension along which a LayerScale multiplies, found by calling it; None if it computes something else.

    Args:
        module: module with one vector of weights.
        shape: shape of its input in the network.
    """
    gamma = next(module.parameters()).detach()
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(shape, generator=generator).to(gamma)
    y = module(x.clone())
    for dim in (1, len(shape) - 1):
        view = [1] * len(shape)
        view[dim] = -1
        if shape[dim] == gamma.numel() and torch.equal(y, x * gamma.reshape(view)):
            return dim
    return None


def _wide(module: nn.Module, name: str) -> Tensor | None:
    """A layer's parameter or buffer in float64, or None where it has none."""
    value = getattr(module, name, None)
    return value.detach().double() if isinstance(value, Tensor) else None


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    old = layer.weight
    assert isinstance(old, nn.Parameter)
    for name, value in (("weight", weight), ("bias", bias)):
        new = None if value is None else nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad)
        layer.register_parameter(name, new)
