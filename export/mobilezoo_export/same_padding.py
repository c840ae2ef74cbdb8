"""Constant padding instead of timm's "same" padding (TensorFlow's), for all resolutions of a flexible file.

Its amount depends on the size of each layer's input, and `torch.export` does not finish on chains of such formulas
(MnasNet: minutes without an end). In steps of 32 pixels the amounts are mostly the same for every resolution.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mobilezoo.errors import ExportError
from mobilezoo_export.flexible import bounds
from mobilezoo_export.records import ExportSpec

Padding = tuple[int, int, int, int]
"""Left, right, top, bottom."""


def settle_padding(model: nn.Module, spec: ExportSpec) -> None:
    """Replace layers that compute their padding by layers with constant padding, in place.

    Args:
        model: network in eval mode.
        spec: input size and `flexible` option; nothing changes unless resolutions are open.

    Raises:
        ExportError: a layer's padding depends on the resolution.
    """
    from timm.layers import Conv2dSame

    layers = {name: layer for name, layer in model.named_modules() if type(layer) is Conv2dSame}
    if not layers or 2 not in bounds(spec):
        return
    for name, padding in _paddings(model, spec, layers).items():
        if len(padding) > 1:
            raise ExportError(
                f"{spec.model} cannot take other sizes (flexible={spec.options.flexible}): the padding of {name} "
                "depends on the resolution: export one file per size instead"
            )
        for amounts in padding:
            model.set_submodule(name, nn.Sequential(nn.ZeroPad2d(amounts), _unpadded(layers[name])).eval())


def _paddings(model: nn.Module, spec: ExportSpec, layers: dict[str, Any]) -> dict[str, set[Padding]]:
    """Return the paddings that each layer computes over all resolutions."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    found: dict[str, set[Padding]] = {name: set() for name in layers}
    hooks = [layer.register_forward_pre_hook(_note(found[name])) for name, layer in layers.items()]
    rows, columns = bounds(spec)[2], bounds(spec)[3]
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            for i in range(max(len(rows), len(columns))):
                size = rows[min(i, len(rows) - 1)], columns[min(i, len(columns) - 1)]
                model(torch.zeros(spec.batch, spec.in_chans, *size))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _note(found: set[Padding]) -> Callable[[Any, tuple[Tensor, ...]], None]:
    from timm.layers.padding import pad_same_arg

    def hook(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        size = [int(length) for length in inputs[0].shape[2:]]
        left, right, top, bottom = pad_same_arg(size, layer.kernel_size, layer.stride, layer.dilation)
        found.add((left, right, top, bottom))

    return hook


def _unpadded(layer: Any) -> nn.Conv2d:
    """Return the same convolution without padding; it shares the weights."""
    shape = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, 0, layer.dilation, layer.groups
    plain = nn.Conv2d(*shape, bias=layer.bias is not None)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain
