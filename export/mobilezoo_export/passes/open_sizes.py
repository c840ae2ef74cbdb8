"""For files that take other sizes: computed sizes only where they are needed, in forms that converters take.

ExecuTorch's delegate takes reshapes with one inferred size and none with computed ones, and means over rows and columns
only where they keep their axes: a classifier's head would be cut off from the program. Core ML's converter takes no
splits by computed sizes (coordinate attention), but slices.
"""

import operator
import sys

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of
from mobilezoo_export.passes.noop import ALWAYS


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed.

    Writes no size that depends on the input's, except the number of channels (NCHW).
    """
    aliases = list(calls(model, *ALWAYS))
    for node in aliases:
        replace(node, node.args[0])  # type: ignore[arg-type]
    return len(aliases) + _reshapes(model) + _means(model) + _splits(model)


def _reshapes(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.view.default):
        sizes = list(node.args[1])  # type: ignore[arg-type]
        if sum(isinstance(size, Node) for size in sizes) == 1 and -1 not in sizes:
            node.args = node.args[0], [-1 if isinstance(size, Node) else size for size in sizes]
            changed += 1
    return changed


def _means(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.mean.dim):
        source, axes = node.args[0], argument(node, 1, "dim") or ()
        if not isinstance(source, Node) or len(shape_of(source)) != 4 or argument(node, 2, "keepdim", False):
            continue
        if sorted(axis % 4 for axis in axes) != [2, 3] or node.kwargs:
            continue
        with model.graph.inserting_before(node):
            kept = model.graph.call_function(aten.mean.dim, (source, [2, 3], True))
            replace(node, model.graph.call_function(aten.view.default, (kept, [-1, shape_of(source)[1]])))
        changed += 1
    return changed


def _splits(model: GraphModule) -> int:
    changed = 0
    for node in calls(model, aten.split_with_sizes.default):
        source, sizes, axis = node.args[0], list(node.args[1]), argument(node, 2, "dim", 0)  # type: ignore[arg-type]
        if not any(isinstance(size, Node) for size in sizes):
            continue
        with model.graph.inserting_before(node):
            ends = [sizes[0]]
            for size in sizes[1:-1]:
                ends.append(model.graph.call_function(operator.add, (ends[-1], size)))
            limits = list(zip([0, *ends], [*ends, sys.maxsize], strict=True))
        for user in list(node.users):
            with model.graph.inserting_before(user):
                start, end = limits[user.args[1]]  # type: ignore[index]
                replace(user, model.graph.call_function(aten.slice.Tensor, (source, axis, start, end)))
        model.graph.erase_node(node)
        changed += 1
    return changed
