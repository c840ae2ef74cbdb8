"""Padding of strided convolutions for XNNPACK in half precision.

TFLite's "same" padding puts the odd row of an even map at its end, PyTorch's at its start: the converter writes a PAD
before each strided convolution. In float32 and int8 XNNPACK merges it into the convolution, in half precision it does
not, and its kernel then copies pixel by pixel (MobileNetV2 + CA on a Cortex-A76: 6.6 of 41.8 megacycles). Depthwise
windows get a row and a column of zeros, which make both paddings equal, where XNNPACK has a kernel of so many taps; all
others are padded as rows of width times channels, which are copied at once. Runs after the layout pass.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, constant, replace, shape_of
from mobilezoo_export.passes.layout_rules import NHWC
from mobilezoo_export.passes.pads import NCHW, pad_rows
from mobilezoo_export.passes.taps import TILES, pair


class Axis(NamedTuple):
    """A convolution along rows or columns."""

    size: int
    """Of its input."""
    outputs: int
    window: int
    """Of a dilated one, from end to end."""
    stride: int
    padding: int
    dilation: int

    @property
    def reached(self) -> int:
        """Padding that is read, both ends together; negative where the end of the map is not read."""
        return (self.outputs - 1) * self.stride + self.window - self.size

    @property
    def is_same(self) -> bool:
        """Whether this is TFLite's "same" padding, or none."""
        fills = self.outputs == -(-self.size // self.stride)
        return not self.padding or (fills and max(self.reached, 0) // 2 == self.padding)

    @property
    def zeros(self) -> int | None:
        """Places to add at the window's end so that both paddings are equal; None where no number does it."""
        lacking = 2 * self.padding - self.reached
        fills = self.outputs == -(-self.size // self.stride)
        return lacking // self.dilation if fills and lacking >= 0 and lacking % self.dilation == 0 else None


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = sum(pad_rows(model, node) for node in list(calls(model, aten.constant_pad_nd.default)))
    for node in calls(model, aten.conv2d.default):
        axes = _axes(node)
        if not all(axis.is_same for axis in axes):
            changed += _widen(model, node, axes) or _pad_rows(model, node, axes)
    return changed


def _axes(node: Node) -> tuple[Axis, Axis]:
    source, weights = node.args[:2]
    assert isinstance(source, Node)
    assert isinstance(weights, Node)
    stride, padding, dilation = (
        pair(argument(node, index, name, default))
        for index, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    sizes, outputs, taps = shape_of(source)[-2:], shape_of(node)[-2:], shape_of(weights)[-2:]
    rows, columns = (
        Axis(sizes[i], outputs[i], (taps[i] - 1) * dilation[i] + 1, stride[i], padding[i], dilation[i]) for i in (0, 1)
    )
    return rows, columns


def _widen(model: GraphModule, node: Node, axes: tuple[Axis, Axis]) -> bool:
    """Adds zeros to a depthwise window where a kernel holds it; returns whether it did."""
    weights = constant(model, node.args[1])
    down, right = axes[0].zeros, axes[1].zeros
    if weights is None or weights.shape[1] != 1 or argument(node, 6, "groups", 1) == 1 or down is None or right is None:
        return False
    if (weights.shape[2] + down) * (weights.shape[3] + right) > TILES[-1]:
        return False
    with model.graph.inserting_before(node):
        node.update_arg(1, add_constant(model, F.pad(weights, (0, right, 0, down)), "widened"))
    return True


def _pad_rows(model: GraphModule, node: Node, axes: tuple[Axis, Axis]) -> bool:
    """Pads a map that is stored channels last as rows of all its columns' channels; returns whether it did."""
    turned = node.args[0]
    assert isinstance(turned, Node)
    if turned.target is not aten.permute.default or tuple(turned.args[1]) != NCHW:  # type: ignore[arg-type]
        return False
    stored, call = turned.args[0], model.graph.call_function
    batch, height, width, channels = (shape_of(turned)[axis] for axis in NHWC)
    top, left = (axis.padding for axis in axes)
    bottom, right = (max(axis.reached - axis.padding, 0) for axis in axes)
    with model.graph.inserting_before(node):
        padded = call(aten.constant_pad_nd.default, (stored, [0, 0, left, right, top, bottom], 0.0))
        padded.meta["val"] = turned.meta["val"].new_empty(
            (batch, height + top + bottom, width + left + right, channels)
        )
        source = call(aten.permute.default, (padded, list(NCHW)))
        steps = (pair(argument(node, 3, "stride", 1)), [0, 0], pair(argument(node, 5, "dilation", 1)))
        given = (source, node.args[1], argument(node, 2, "bias"), *steps, argument(node, 6, "groups", 1))
        replace(node, call(aten.conv2d.default, given))
    return pad_rows(model, padded)
