"""Average pools of small windows as depthwise convolutions with equal weights.

LiteRT's XNNPACK takes average pools in float only: in an int8 file each one cuts the program in two.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, replace, shape_of

LARGEST = 5
"""Taps to a side up to which a convolution is as fast."""


def run(model: GraphModule) -> int:
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
