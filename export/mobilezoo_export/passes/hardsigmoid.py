"""Hard sigmoid as a shifted, clipped and scaled line.

ExecuTorch takes it apart with whole-number constants, and converts each of them to float in a kernel of its own at
every run (MobileNetV3-Small: 18 operators outside XNNPACK).
"""

from torch.fx import GraphModule

from mobilezoo_export.passes.graph import aten, calls, replace


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.hardsigmoid.default):
        call = model.graph.call_function
        with model.graph.inserting_before(node):
            clipped = call(aten.hardtanh.default, (call(aten.add.Tensor, (node.args[0], 3.0)), 0.0, 6.0))
            replace(node, call(aten.mul.Tensor, (clipped, 1.0 / 6.0)))
        changed += 1
    return changed
