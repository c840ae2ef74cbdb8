"""Operator groups of the layout pass, and the mapping of axis orders through reshapes, reductions and padding."""

from collections.abc import Sequence

from mobilezoo_export.passes.graph import aten

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)

UNARY = (
    aten.abs.default,
    aten.add.Scalar,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.div.Scalar,
    aten.elu.default,
    aten.erf.default,
    aten.exp.default,
    aten.gelu.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.hardtanh.default,
    aten.leaky_relu.default,
    aten.log.default,
    aten.mish.default,
    aten.mul.Scalar,
    aten.neg.default,
    aten.pow.Tensor_Scalar,
    aten.reciprocal.default,
    aten.relu.default,
    aten.relu6.default,
    aten.rsqrt.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.softplus.default,
    aten.sqrt.default,
    aten.square.default,
    aten.sub.Scalar,
    aten.tanh.default,
)
"""Elementwise operators with one tensor: any axis order works."""

BINARY = (
    aten.add.Tensor,
    aten.div.Tensor,
    aten.maximum.default,
    aten.minimum.default,
    aten.mul.Tensor,
    aten.pow.Tensor_Tensor,
    aten.sub.Tensor,
)

IMAGE = (
    aten.avg_pool2d.default,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv_transpose2d.input,
    aten.max_pool2d.default,
    aten.pixel_shuffle.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
)
"""Operators that the converter computes in NHWC."""

REDUCTIONS = (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.var.correction)


def is_free(shape: Sequence[int], have: Order, want: Order) -> bool:
    """Whether two orders differ in the place of size-one axes only, so that a reshape converts one to the other.

    Args:
        shape: sizes of the logical axes.
        have: order of the stored tensor.
        want: order to convert to.
    """
    return [axis for axis in have if shape[axis] != 1] == [axis for axis in want if shape[axis] != 1]


def reduced_order(order: Order, gone: Sequence[int]) -> Order:
    """Return the order of the remaining axes, renumbered, after a reduction.

    Args:
        order: order of the stored tensor.
        gone: logical axes that the reduction removes.
    """
    left = [axis for axis in order if axis not in gone]
    ranks = {axis: rank for rank, axis in enumerate(sorted(left))}
    return tuple(ranks[axis] for axis in left)


def padding_in_order(pads: Sequence[int], order: Order) -> list[int]:
    """Reorder the amounts of `constant_pad_nd` for a stored tensor.

    Args:
        pads: [low, high] per logical axis, last axis first; leading axes may be left out.
        order: order of the stored tensor.

    Returns:
        [low, high] per stored axis, last axis first.
    """
    rank = len(order)
    by_axis = {rank - 1 - i // 2: list(pads[i : i + 2]) for i in range(0, len(pads), 2)}
    return [amount for axis in reversed(order) for amount in by_axis.get(axis, [0, 0])]


def reshaped_order(before: Sequence[int], after: Sequence[int], order: Order) -> Order | None:
    """Return the axis order after a reshape of the stored tensor, or None if that would reorder elements.

    A reshape merges and splits runs of neighboring axes. It works on the stored tensor when the axes of each run are
    adjacent there, in the same sequence; axes of size one never interfere.

    Args:
        before: logical shape of the input.
        after: logical shape of the output.
        order: order of the stored input.
    """
    groups = _runs(tuple(before), tuple(after))
    if groups is None:
        return None
    placed: list[tuple[float, int, list[int]]] = []
    position = -1.0
    for number, (old, new) in enumerate(groups):
        solid = [order.index(axis) for axis in old if before[axis] != 1]
        if solid:
            between = order[solid[0] : solid[-1] + 1]
            if solid != sorted(solid) or any(before[axis] != 1 and axis not in old for axis in between):
                return None
            position = float(solid[0])
        elif old:
            position = float(order.index(old[0]))
        placed.append((position, number, new))
    return tuple(axis for _, _, new in sorted(placed, key=lambda item: item[:2]) for axis in new)


def _runs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]] | None:
    """Split both shapes into the smallest runs of axes that hold the same number of elements; None if impossible."""
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        old, new, size_old, size_new = [], [], 1, 1
        unit_old, unit_new = before[i : i + 1] == (1,), after[j : j + 1] == (1,)
        if i < len(before) and (unit_old or not unit_new):
            old, size_old, i = [i], before[i], i + 1
        if j < len(after) and (unit_new or not unit_old):
            new, size_new, j = [j], after[j], j + 1
        while size_old != size_new:
            if size_old < size_new and i < len(before):
                old, size_old, i = [*old, i], size_old * before[i], i + 1
            elif size_new < size_old and j < len(after):
                new, size_new, j = [*new, j], size_new * after[j], j + 1
            else:
                return None
        groups.append((old, new))
    return groups
