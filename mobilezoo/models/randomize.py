"""Norms and LayerScales of a network that was never trained: find the ones that switch a branch off, or fill them.

Fresh networks start with residual branches at zero (BatchNorm gamma 0, LayerScale 1e-6). Such a network hides errors in
those branches, and converters fold the branches away, so that its latency is too good.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LAYER_SCALE_FLOOR = 1e-4
"""A LayerScale whose largest entry is below this switches its branch off."""
_LAYER_SCALE_NAME = re.compile(r"gamma|layer_?scale|(^|_)ls_?\d*$", re.IGNORECASE)


@torch.no_grad()
def randomize_norms(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Fill norms and LayerScales in place as a trained network might have them, and return `model`.

    Weights and running variances are uniform in 0.5..1.5, biases and running means normal with deviation 0.1. The
    values depend on the CPU generator and the network's structure alone, not on device or dtype.

    Args:
        model: network, changed in place.
        generator: CPU generator; None for PyTorch's default one.
    """
    for _, _, scale in _scales(model):
        scale.copy_(torch.empty(scale.shape).uniform_(0.5, 1.5, generator=generator))
    for module in model.modules():
        if not _is_norm(module):
            continue
        for name, tensor in _own_tensors(module):
            if name == "running_var":
                tensor.copy_(torch.empty(tensor.shape).uniform_(0.5, 1.5, generator=generator))
            elif name in ("bias", "running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model


@torch.no_grad()
def as_if_trained(model: nn.Module, images: Tensor, seed: int = 0) -> nn.Module:
    """`randomize_norms`, then BatchNorm variances for which the maps of some images keep their size.

    With variances that fit nothing, maps grow or fade from layer to layer until no int8 file can follow. The means stay
    small: with fitting ones too, a deep random network blows up the smallest difference.

    Args:
        model: network, changed in place and put into eval mode.
        images: [B, C, H, W].
        seed: of the random numbers.

    Returns:
        The model itself.
    """
    randomize_norms(model, torch.Generator().manual_seed(seed)).eval()

    def fit(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1)
        norm.running_var.copy_((x - norm.running_mean[:, None]).square().mean(1))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(fit) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()
    return model


@torch.no_grad()
def zero_gammas(model: nn.Module) -> tuple[str, ...]:
    """Names of the norm scales that are all zero, and of the LayerScales that are below 1e-4 throughout."""
    found = []
    for name, is_layer_scale, scale in _scales(model):
        largest = float(scale.abs().max()) if scale.numel() else 1.0
        if largest == 0.0 or (is_layer_scale and largest < LAYER_SCALE_FLOOR):
            found.append(name)
    return tuple(found)


def _scales(model: nn.Module) -> Iterator[tuple[str, bool, Tensor]]:
    """(name, is it a LayerScale, tensor) of every per-channel scale: norm weights and LayerScales."""
    for prefix, module in model.named_modules():
        for name, tensor in _own_tensors(module):
            full = f"{prefix}.{name}" if prefix else name
            if _is_norm(module):
                if name in ("weight", "gamma"):
                    yield full, False, tensor
            elif isinstance(tensor, nn.Parameter) and _is_layer_scale(type(module).__name__, name, tensor):
                yield full, True, tensor


def _is_layer_scale(kind: str, name: str, tensor: Tensor) -> bool:
    is_vector = tensor.numel() == max(tensor.shape, default=0)
    return is_vector and (kind.lower().startswith("layerscale") or bool(_LAYER_SCALE_NAME.search(name)))


def _is_norm(module: nn.Module) -> bool:
    """Norm layers of torch, torchvision and timm all have "Norm" in their class name or a base's, and a 1-D weight."""
    named_so = any("Norm" in base.__name__ for base in type(module).__mro__)
    weight = getattr(module, "weight", None)
    return named_so and isinstance(weight, Tensor) and weight.ndim == 1


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if tensor.is_floating_point():
            yield name, tensor
