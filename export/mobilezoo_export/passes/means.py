"""Means along rows or columns as average pools: ExecuTorch's delegate takes a mean over both axes only.

Coordinate attention has two of them per block (MobileNetV2 + CA: 32, which cut its program into 17 partitions).
"""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed.

    Expects means that keep their axes, as `canonical` leaves them.
    """
    changed = 0
    for node in calls(model, aten.mean.dim):
        source = node.args[0]
        axes = [int(axis) % 4 for axis in argument(node, 1, "dim") or ()]
        if not isinstance(source, Node) or len(shape_of(source)) != 4 or axes not in ([2], [3]):
            continue
        _, _, height, width = shape_of(source)
        window = [height, 1] if axes == [2] else [1, width]
        with model.graph.inserting_before(node):
            replace(node, model.graph.call_function(aten.avg_pool2d.default, (source, window, window)))
        changed += 1
    return changed
