"""Depthwise convolutions of many taps as sums of smaller ones, for targets that run in XNNPACK.

XNNPACK has depthwise kernels for up to 25 taps, and computes larger windows channel by channel: counted on a
Cortex-A76, a 7 × 7 convolution of 48 channels takes 28 megacycles as one, and 5 as three. The window's rows and columns
are dealt to pieces that lie evenly spaced and symmetric in it (of seven: 0, 3, 6; 1, 5; 2, 4): each is a dilated
convolution with the same padding on both sides, so nothing is padded or cut by an operator of its own.
"""

import functools
import itertools
from collections.abc import Iterator

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import add_constant, argument, aten, calls, constant, replace, shape_of

TILES = (3, 4, 9, 25)
"""Taps of XNNPACK's depthwise kernels; a window is computed by the next larger one."""
ADDITION = 8
"""What one more piece costs (its addition, and the loop around its kernel), in taps; counted on a Cortex-A76."""
MOST = 6
"""Parts that an axis is dealt to, at most."""
Part = tuple[int, int, int]
"""Evenly spaced places of an axis: the first, the step, their number."""


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.conv2d.default):
        if not _is_large(model, node):
            continue
        trimmed = _trim(model, node)
        pieces = _pieces_of(model, node)
        if pieces:
            replace(node, _summed(model, node, pieces))
        changed += bool(pieces or trimmed)
    return changed


def _is_large(model: GraphModule, node: Node) -> bool:
    """Whether it is a depthwise convolution that XNNPACK has no kernel for."""
    weights, source = constant(model, node.args[1]), node.args[0]
    if weights is None or not isinstance(source, Node) or weights.shape[1] != 1 or argument(node, 6, "groups", 1) == 1:
        return False
    return shape_of(source)[1] == weights.shape[0] and weights.shape[2] * weights.shape[3] > TILES[-1]


def _trim(model: GraphModule, node: Node) -> bool:
    """Cuts off a window's rows and columns that lie in the padding wherever it is applied: small maps have many."""
    weights, source = constant(model, node.args[1]), node.args[0]
    assert weights is not None
    assert isinstance(source, Node)
    stride, padding, dilation = (
        pair(argument(node, index, name, default))
        for index, (name, default) in ((3, ("stride", 1)), (4, ("padding", 0)), (5, ("dilation", 1)))
    )
    kept: list[slice] = []
    for axis in (0, 1):
        size, outputs, taps = shape_of(source)[2 + axis], shape_of(node)[2 + axis], int(weights.shape[2 + axis])
        step, around, apart = stride[axis], padding[axis], dilation[axis]
        places = [[o * step - around + tap * apart for o in range(outputs)] for tap in range(taps)]
        read = [tap for tap, reached in enumerate(places) if any(0 <= place < size for place in reached)]
        cut = slice(read[0], read[-1] + 1) if read else slice(0, taps)
        rest = around - cut.start * apart
        same = rest >= 0 and (size + 2 * rest - apart * (cut.stop - cut.start - 1) - 1) // step + 1 == outputs
        kept.append(cut if same else slice(0, taps))
        padding[axis] = rest if same else around
    taken = weights[:, :, kept[0], kept[1]]
    if taken.shape == weights.shape:
        return False
    with model.graph.inserting_before(node):
        kernel = add_constant(model, taken, "trimmed")
        given = (source, kernel, argument(node, 2, "bias"), stride, padding, dilation, weights.shape[0])
    node.args, node.kwargs = given, {}
    return True


def _pieces_of(model: GraphModule, node: Node) -> tuple[tuple[Part, Part], ...]:
    """The pieces of a convolution; none where it stays whole."""
    weights = constant(model, node.args[1])
    assert weights is not None
    height, width = int(weights.shape[2]), int(weights.shape[3])
    if height * width <= TILES[-1]:
        return ()
    pieces = dealt(height, width)
    padding, dilation = pair(argument(node, 4, "padding", 0)), pair(argument(node, 5, "dilation", 1))
    inside = all(padding[axis] >= piece[axis][0] * dilation[axis] for piece in pieces for axis in (0, 1))
    return pieces if inside else ()


@functools.cache
def dealt(height: int, width: int) -> tuple[tuple[Part, Part], ...]:
    """The pieces of a window, rows and columns of each, that together take the fewest taps of the kernels.

    Args:
        height: rows of the window.
        width: its columns.

    Returns:
        Pieces that hold every tap once; none where no few pieces do.
    """
    best: tuple[tuple[Part, Part], ...] = ()
    least = float("inf")
    for rows, columns in itertools.product(_deals(height), _deals(width)):
        sizes = [row[2] * column[2] for row in rows for column in columns]
        if max(sizes) > TILES[-1]:
            continue
        cost = sum(next(tile for tile in TILES if tile >= size) for size in sizes) + ADDITION * (len(sizes) - 1)
        if cost < least:
            best, least = tuple(itertools.product(rows, columns)), cost
    return best


@functools.cache
def _deals(length: int) -> tuple[tuple[Part, ...], ...]:
    """The ways to deal the places of an axis to at most MOST evenly spaced parts, each symmetric about the middle."""
    return tuple(_dealt_rest(frozenset(range(length)), length, MOST))


def _dealt_rest(left: frozenset[int], length: int, parts: int) -> Iterator[tuple[Part, ...]]:
    if not left:
        yield ()
        return
    if not parts:
        return
    first = min(left)
    span = length - 1 - 2 * first
    for step in range(1, span + 1) if span else (1,):
        places = frozenset(range(first, length - first, step))
        if span % step == 0 and places <= left:
            for rest in _dealt_rest(left - places, length, parts - 1):
                yield (first, step, len(places)), *rest


def _summed(model: GraphModule, node: Node, pieces: tuple[tuple[Part, Part], ...]) -> Node:
    source, weights, bias = node.args[0], constant(model, node.args[1]), argument(node, 2, "bias")
    assert weights is not None
    stride, padding, dilation = (
        pair(argument(node, index, name, default))
        for index, (name, default) in ((3, ("stride", 1)), (4, ("padding", 0)), (5, ("dilation", 1)))
    )
    total: Node | None = None
    with model.graph.inserting_before(node):
        for rows, columns in pieces:
            taken = weights[:, :, _places(rows)][:, :, :, _places(columns)]
            kernel = add_constant(model, taken, "taps")
            parts = (rows, columns)
            around = [room - part[0] * apart for room, part, apart in zip(padding, parts, dilation, strict=True)]
            apart = [part[1] * step for part, step in zip(parts, dilation, strict=True)]
            given = (source, kernel, bias if total is None else None, stride, around, apart, weights.shape[0])
            piece = model.graph.call_function(aten.conv2d.default, given)
            piece.meta["val"] = node.meta["val"]
            total = piece if total is None else model.graph.call_function(aten.add.Tensor, (total, piece))
            total.meta["val"] = node.meta["val"]
    assert total is not None
    return total


def _places(part: Part) -> slice:
    first, step, count = part
    return slice(first, first + step * (count - 1) + 1, step)


def pair(value: object) -> list[int]:
    """Return two numbers of one or two, as convolutions take them."""
    numbers = [int(number) for number in value] if isinstance(value, list | tuple) else [int(str(value))]
    return numbers * (2 if len(numbers) == 1 else 1)
