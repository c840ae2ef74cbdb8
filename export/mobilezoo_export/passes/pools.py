"""Average pools of small windows as depthwise convolutions with equal weights, adaptive ones as what they are.

LiteRT's XNNPACK takes average pools in float only: in an int8 file each one cuts the program in two. An adaptive pool
has windows of one size where its output divides the map; elsewhere it is a product with constant means from either
side.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, replace, shape_of

LARGEST = 5
"""Taps to a side up to which a convolution is as fast."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    return _adaptive(model) + _windowed(model)


def _adaptive(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.adaptive_avg_pool2d.default):
        source, size = node.args[0], _pair(node.args[1])
        assert isinstance(source, Node)
        have = shape_of(source)[-2:]
        if size == [1, 1] or len(shape_of(source)) != 4:
            continue
        with model.graph.inserting_before(node):
            if any(there % here for there, here in zip(have, size, strict=True)):
                new = _by_means(model, source, size)
            else:
                window = [there // here for there, here in zip(have, size, strict=True)]
                new = model.graph.call_function(aten.avg_pool2d.default, (source, window))
            new.meta["val"] = node.meta["val"]
            replace(node, new)
        changed += 1
    return changed


def _by_means(model: GraphModule, source: Node, size: list[int]) -> Node:
    """Rows, then columns, channels innermost."""
    batch, channels, height, width = shape_of(source)
    call = model.graph.call_function
    rows, columns = (
        add_constant(model, _means(there, here), "window_mean")
        for there, here in zip((height, width), size, strict=True)
    )
    x = call(aten.permute.default, (source, [0, 2, 3, 1]))
    x = call(aten.reshape.default, (x, [batch, height, width * channels]))
    x = _product(model, rows, x, batch)
    x = call(aten.reshape.default, (x, [batch * size[0], width, channels]))
    x = _product(model, columns, x, batch * size[0])
    x = call(aten.reshape.default, (x, [batch, *size, channels]))
    return call(aten.permute.default, (x, [0, 3, 1, 2]))


def _product(model: GraphModule, means: Node, x: Node, batch: int) -> Node:
    """A constant matrix [out, in] times each of the batch's [in, n]."""
    call = model.graph.call_function
    each = call(aten.expand.default, (call(aten.unsqueeze.default, (means, 0)), [batch, -1, -1]))
    return call(aten.bmm.default, (each, x))


def _means(there: int, here: int) -> torch.Tensor:
    """[here, there]: row i averages the window from floor(i · there / here) to ceil((i + 1) · there / here)."""
    rows = torch.zeros(here, there)
    for i in range(here):
        first, end = i * there // here, -(-(i + 1) * there // here)
        rows[i, first:end] = 1.0 / (end - first)
    return rows


def _windowed(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.avg_pool2d.default):
        source, window = node.args[0], _pair(node.args[1])
        assert isinstance(source, Node)
        stride, padding = _pair(argument(node, 2, "stride", ()) or window), _pair(argument(node, 3, "padding", 0))
        rounds_up, counts_padding = argument(node, 4, "ceil_mode", False), argument(node, 5, "count_include_pad", True)
        divisor = argument(node, 6, "divisor_override")
        if rounds_up or max(window) > LARGEST or (any(padding) and not counts_padding):
            continue
        channels = shape_of(source)[-3]
        kernel = torch.full((channels, 1, *window), 1 / (divisor or window[0] * window[1]))
        with model.graph.inserting_before(node):
            weights = add_constant(model, kernel, "window_mean")
            given = (source, weights, None, stride, padding, [1, 1], channels)
            replace(node, model.graph.call_function(aten.conv2d.default, given))
        changed += 1
    return changed


def _pair(value: Any) -> list[int]:
    """One number or two."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    return [int(number) for number in numbers] * (2 if len(numbers) == 1 else 1)
