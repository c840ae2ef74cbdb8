"""Find the BatchNorms and LayerScales that a neighbouring linear layer can take up, and fold them.

A per-channel scale passes unchanged through whatever only moves channels (reshapes that keep the channel dimension
whole, transposes) or averages within them, so the linear layer may stand beyond such steps.
"""

import math

import torch
from torch import nn

from mobilezoo.models.fuse.affine import (
    Affine,
    absorb_after,
    absorb_before,
    affine_of,
    remainder,
    replace,
    scaled_dim,
    takes_before,
)
from mobilezoo.models.fuse.trace import LINEARS, NORMS, Step, Trace, is_scale

_RESHAPES = {"flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"}
_MEANS = {"mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}


def fold_norms(model: nn.Module, trace: Trace) -> int:
    """Fold every BatchNorm that one pass can fold.

    Args:
        model: network in eval mode, changed in place.
        trace: one forward pass of it.

    Returns:
        The number of folded norms.
    """
    folded = 0
    for step in trace.steps:
        norm = step.module
        if norm is None or not trace.may_change(norm, NORMS) or (affine := affine_of(norm)) is None:
            continue
        rest = remainder(norm)
        if _fold_back(trace, step, affine) or (isinstance(rest, nn.Identity) and _fold_forward(trace, step, affine)):
            replace(model, norm, rest)
            folded += 1
    return folded


def fold_scales(model: nn.Module, trace: Trace) -> int:
    """Fold every LayerScale that one pass can fold.

    Args:
        model: network in eval mode, changed in place.
        trace: one forward pass of it.

    Returns:
        The number of folded scales.
    """
    folded = 0
    for step in trace.steps:
        scale = step.module
        if scale is None or not is_scale(scale) or not trace.may_change(scale, (type(scale),)):
            continue
        dim = scaled_dim(scale, step.shape)
        gamma = next(scale.parameters()).detach().double().flatten()
        if dim is None:
            continue
        affine = gamma, torch.zeros_like(gamma)
        if _fold_back(trace, step, affine, dim) or _fold_forward(trace, step, affine, dim):
            replace(model, scale, nn.Identity())
            folded += 1
    return folded


def _fold_back(trace: Trace, step: Step, affine: Affine, dim: int = 1) -> bool:
    """Fold into what produced the step's input: a layer, or layers whose outputs are concatenated."""
    # Walk up through steps that only move data, as long as nothing else reads them.
    token, dim = step.inputs[0], dim % len(step.shape)
    source = trace.producer(token)
    while source is not None and trace.uses[token] == 1 and (moved := _moved(source, dim, back=True)) is not None:
        token, dim = source.inputs[0], moved
        source = trace.producer(token)
    if source is None or trace.uses[token] != 1:
        return False
    # A concatenation over channels is folded into each of its inputs.
    parts = [source]
    if source.function in ("cat", "concat") and dim == 1 and 1 in source.constants:
        found = [trace.producer(part) for part in source.inputs if trace.uses[part] == 1]
        parts = [part for part in found if part is not None]
        if len(parts) != len(source.inputs):
            return False
    # Every part must be a linear layer, used once, whose output channels are the scaled dimension.
    layers = [part.module for part in parts if part.module and trace.may_change(part.module, LINEARS)]
    layers = [layer for layer in layers if _channel_dim(layer, len(parts[0].result)) == dim]
    widths = [_width(layer) for layer in layers]
    if len(layers) != len(parts) or len(set(layers)) != len(parts) or sum(widths) != affine[0].numel():
        return False
    for layer, scale, shift in zip(layers, affine[0].split(widths), affine[1].split(widths), strict=True):
        absorb_after(layer, scale, shift)
    return True


def _fold_forward(trace: Trace, step: Step, affine: Affine, dim: int = 1) -> bool:
    """Fold into the only layer that reads the step's output."""
    token, dim = step.outputs[0], dim % len(step.shape)
    while True:
        consumers = trace.consumers(token)
        if len(consumers) != 1 or trace.uses[token] != 1:
            return False
        moved = _moved(consumers[0], dim, back=False)
        if moved is None:
            break
        token, dim = consumers[0].outputs[0], moved
    layer = consumers[0].module
    if layer is None or not trace.may_change(layer, LINEARS) or not takes_before(layer, affine[1]):
        return False
    if _channel_dim(layer, len(consumers[0].shape)) != dim:
        return False
    absorb_before(layer, *affine)
    return True


def _moved(step: Step, dim: int, back: bool) -> int | None:
    """Where a step that only moves or averages data takes dimension `dim` (or takes it from); None for other steps."""
    if step.module is not None or len(step.inputs) != 1 or len(step.outputs) != 1:
        return None
    # Walking back, the known dimension is one of the result; walking forward, one of the input.
    before, after = (step.result, step.shape) if back else (step.shape, step.result)
    numbers = [c % len(step.shape) for c in step.constants if isinstance(c, int) and not isinstance(c, bool)]
    if step.function in _RESHAPES:
        # A reshape keeps a dimension that has the same size and the same number of elements before it.
        places = [d for d, size in enumerate(after) if size == before[dim]]
        return next((d for d in places if math.prod(after[:d]) == math.prod(before[:dim])), None)
    if step.function in ("transpose", "swapaxes") and len(numbers) == 2:
        return {numbers[0]: numbers[1], numbers[1]: numbers[0]}.get(dim, dim)
    if step.function == "permute" and len(numbers) == len(step.shape):
        return numbers[dim] if back else numbers.index(dim)
    # Pooling keeps batch and channels; a mean removes, or keeps as 1, the dimensions it is taken over.
    if step.function in _MEANS and step.function != "mean":
        return dim if dim < 2 else None
    if step.function == "mean" and numbers:
        keeps = len(step.result) == len(step.shape)
        kept = [d for d in range(len(step.shape)) if d not in numbers]
        source = dim if keeps or not back else kept[dim]
        return None if source not in kept else source if keeps or back else kept.index(source)
    return None


def _channel_dim(layer: nn.Module, ndim: int) -> int:
    """The channel dimension of a layer's input and output."""
    return ndim - 1 if isinstance(layer, nn.Linear) else 1


def _width(layer: nn.Module) -> int:
    """Number of output channels."""
    size = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    assert isinstance(size, int)
    return size
