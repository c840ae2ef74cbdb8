"""Replace blocks that only sum convolutions, BatchNorms and their input by the one convolution they compute.

The sum's kernel is the sum of the kernels, centred on each other; the identity is a kernel with a single 1 (RepVGG,
arXiv:2101.03697, section 3.3; a depthwise residual x + conv(x) is the same with one branch less).
"""

from dataclasses import dataclass, replace

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from mobilezoo.models.fuse.affine import affine_of, remainder
from mobilezoo.models.fuse.affine import replace as replace_module
from mobilezoo.models.fuse.trace import NORMS, Span, Step, Trace, has_hooks


@dataclass(frozen=True)
class _Kernel:
    """A convolution of the block's input: weight [O, I/groups, kh, kw] (odd, centred), bias [O], both float64."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    groups: int
    is_input: bool = False
    cost: int = 0
    """Weights of the convolutions it stands for."""

    def scaled(self, scale: Tensor, shift: Tensor) -> "_Kernel":
        weight = self.weight * scale.reshape(-1, 1, 1, 1)
        return replace(self, weight=weight, bias=self.bias * scale + shift, is_input=False)

    def plus(self, other: "_Kernel", sign: float) -> "_Kernel | None":
        """The sum of two convolutions of the same input; None where their shapes differ."""
        groups = min(self.groups, other.groups)
        if self.stride != other.stride or self.groups % groups or other.groups % groups:
            return None
        if len(self.weight) != len(other.weight):
            return None
        kh, kw = (max(a, b) for a, b in zip(self.weight.shape[2:], other.weight.shape[2:], strict=True))
        mine, theirs = (_centred(_regrouped(k, groups), kh, kw) for k in (self, other))
        cost = self.cost + other.cost
        return _Kernel(mine + sign * theirs, self.bias + sign * other.bias, self.stride, groups, cost=cost)


def collapse_blocks(model: nn.Module, trace: Trace) -> int:
    """Replace every block that only sums convolutions of its input by one convolution.

    Args:
        model: network, changed in place.
        trace: one forward pass of it.

    Returns:
        The number of blocks replaced.
    """
    done: list[Span] = []
    for span in sorted(trace.spans, key=lambda s: (s.first - s.last, trace.spans.index(s))):
        if any(other.first <= span.first and span.last <= other.last for other in done) or span.module is model:
            continue
        if not _is_private(trace, span) or (kernel := _evaluate(trace, span)) is None:
            continue
        replace_module(model, span.module, _as_conv(kernel, span.module))
        done.append(span)
    return len(done)


def _is_private(trace: Trace, span: Span) -> bool:
    """Whether a block ran once, adds something up, and no tensor from within it is read outside."""
    steps = trace.steps[span.first : span.last]
    inside = {token for step in steps for token in step.outputs}
    reads = sum(token in inside for step in steps for token in step.inputs)
    outside = sum(trace.uses[token] for token in inside) - reads
    adds = any(step.function in ("add", "add_", "sub", "sub_") for step in steps)
    return adds and trace.calls[span.module] == 1 and not has_hooks(span.module) and outside == trace.uses[span.result]


def _evaluate(trace: Trace, span: Span) -> _Kernel | None:
    """The convolution that a block computes; None if it computes something else, or would grow."""
    steps = trace.steps[span.first : span.last]
    first = next((s for s in steps if span.source in s.inputs), None)
    if first is None or len(first.shape) != 4:
        return None
    channels = first.shape[1]
    unit = torch.ones(channels, 1, 1, 1, dtype=torch.float64)
    values = {span.source: _Kernel(unit, torch.zeros(channels, dtype=torch.float64), (1, 1), channels, is_input=True)}
    for step in steps:
        if any(token not in values for token in step.inputs) or len(step.outputs) != 1:
            return None
        value = _step(trace, step, [values[token] for token in step.inputs])
        if value is None:
            return None
        values[step.outputs[0]] = value
    result = values.get(span.result)
    return result if result is not None and 0 < result.weight.numel() <= result.cost else None


def _step(trace: Trace, step: Step, inputs: list[_Kernel]) -> _Kernel | None:
    if step.module is None:
        sign = {"add": 1.0, "add_": 1.0, "sub": -1.0, "sub_": -1.0}.get(step.function)
        if sign is not None and len(inputs) == 2 and not step.constants:
            return inputs[0].plus(inputs[1], sign)
        return inputs[0] if sign == 1.0 and len(inputs) == 1 and step.constants == (0,) else None
    if trace.may_change(step.module, (nn.Conv2d, Conv2dSame)) and inputs[0].is_input:
        return _kernel_of(step.module)
    if trace.may_change(step.module, NORMS) and isinstance(remainder(step.module), nn.Identity):
        affine = affine_of(step.module)
        return inputs[0].scaled(*(v.cpu() for v in affine)) if affine else None
    return None


def _kernel_of(conv: nn.Module) -> _Kernel | None:
    assert isinstance(conv, nn.Conv2d)
    half = tuple(k // 2 for k in conv.kernel_size)
    is_same = type(conv) is Conv2dSame or conv.padding == "same"
    centered = conv.stride == (1, 1) if is_same else conv.padding == half
    odd = all(k % 2 for k in conv.kernel_size)
    if not (centered and odd and conv.dilation == (1, 1) and conv.padding_mode == "zeros"):
        return None
    weight = conv.weight.detach().double().cpu()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().cpu()
    return _Kernel(weight, bias, (conv.stride[0], conv.stride[1]), conv.groups, cost=weight.numel())


def _regrouped(kernel: _Kernel, groups: int) -> Tensor:
    """The same weight [O, I/g, kh, kw] written for fewer, larger groups; new places are zero."""
    weight = kernel.weight
    outputs, narrow = weight.shape[:2]
    wide = narrow * kernel.groups // groups
    start = torch.arange(outputs) // (outputs // kernel.groups) * narrow % wide
    index = (start[:, None] + torch.arange(narrow))[:, :, None, None].expand_as(weight)
    return weight.new_zeros(outputs, wide, *weight.shape[2:]).scatter_(1, index, weight)


def _centred(weight: Tensor, kh: int, kw: int) -> Tensor:
    dh, dw = (kh - weight.shape[2]) // 2, (kw - weight.shape[3]) // 2
    return nn.functional.pad(weight, (dw, dw, dh, dh))


def _as_conv(kernel: _Kernel, block: nn.Module) -> nn.Conv2d:
    outputs, per_group, kh, kw = kernel.weight.shape
    like = next(block.parameters())
    conv = nn.Conv2d(
        per_group * kernel.groups,
        outputs,
        (kh, kw),
        stride=kernel.stride,
        padding=(kh // 2, kw // 2),
        groups=kernel.groups,
        device=like.device,
        dtype=like.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(kernel.weight)
        assert conv.bias is not None
        conv.bias.copy_(kernel.bias)
    return conv.eval()
