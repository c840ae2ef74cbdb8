"""For files that take other sizes: a reshape whose one unknown size follows from the rest says so.

ExecuTorch's delegate takes reshapes with one inferred size and none with computed ones, and means over rows and columns
only where they keep their axes: a classifier's head would be cut off from the program.
"""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of


def run(model: GraphModule) -> int:
    """Writes no size that an input could change, unless channels were one (NCHW)."""
    changed = 0
    for node in calls(model, aten.view.default):
        sizes = list(node.args[1])  # type: ignore[arg-type]
        if sum(isinstance(size, Node) for size in sizes) == 1 and -1 not in sizes:
            node.args = node.args[0], [-1 if isinstance(size, Node) else size for size in sizes]
            changed += 1
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
