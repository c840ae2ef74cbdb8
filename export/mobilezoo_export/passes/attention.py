"""Scaled dot-product attention as the two matrix products that it is, for targets without an operator of that name."""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import argument, aten, calls, replace, shape_of


def run(model: GraphModule) -> int:
    """Apply the pass in place; returns the number of places it changed."""
    changed = 0
    for node in calls(model, aten.scaled_dot_product_attention.default):
        query, key, value = node.args[:3]
        assert isinstance(query, Node)
        assert isinstance(key, Node)
        assert isinstance(value, Node)
        if argument(node, 5, "is_causal", False) or shape_of(key)[:-2] != shape_of(query)[:-2]:
            continue
        scale = argument(node, 6, "scale") or shape_of(query)[-1] ** -0.5
        rank = len(shape_of(query))
        with model.graph.inserting_before(node):
            call = model.graph.call_function
            turned = call(aten.permute.default, (key, [*range(rank - 2), rank - 1, rank - 2]))
            scores = call(aten.matmul.default, (call(aten.mul.Tensor, (query, scale)), turned))
            mask = argument(node, 3, "attn_mask")
            if mask is not None:
                scores = call(aten.add.Tensor, (scores, mask))
            new = call(aten.matmul.default, (call(aten.softmax.int, (scores, -1)), value))
        replace(node, new)
        changed += 1
    return changed
