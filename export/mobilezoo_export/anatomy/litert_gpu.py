"""Operators of LiteRT files that its GPU accelerator refuses, computes wrongly or crashes at.

Each was found by running small files on it (LiteRT 2.3, ML Drift on a Vulkan in software) and on XNNPACK.
"""

from collections.abc import Iterator
from math import prod

from mobilezoo_export.anatomy.graph import FLOATS, Graph, Node

MULTIPLE = 4
"""Channels that its shaders compute together."""


def constant_lefts(graph: Graph) -> list[Node]:
    """Matrix products with a constant on the left: the GPU leaves them, and all operators behind them, to the CPU."""
    return [node for node, stored in _float_products(graph) if stored]


def shared_matrices(graph: Graph) -> list[Node]:
    """Matrix products of fewer matrices on one side than on the other: the GPU computes something else."""
    return [node for node, stored in _float_products(graph) if not stored and _is_shared(graph, node)]


def narrow_groups(graph: Graph) -> list[Node]:
    """Grouped convolutions in float whose groups are no multiple of four channels wide: the GPU's process crashes, or
    computes something else."""
    found = []
    for node in graph.nodes:
        shapes = [graph.shape(name) for name in node.inputs[:2]] if node.op == "CONV_2D" else []
        if len(shapes) < 2 or not shapes[0] or not shapes[1] or graph.dtype(node.inputs[1]) not in FLOATS:
            continue
        channels, width = shapes[0][-1], shapes[1][-1]
        if channels and width and 1 < width < channels and width % MULTIPLE:
            found.append(node)
    return found


def _float_products(graph: Graph) -> Iterator[tuple[Node, bool]]:
    """(product, whether the file stores its left side, perhaps in fewer bits)."""
    givers = graph.givers()
    for node in graph.nodes:
        if node.op == "BATCH_MATMUL" and len(node.inputs) == 2 and graph.dtype(node.outputs[0]) in FLOATS:
            giver = givers.get(node.inputs[0])
            source = giver.inputs[0] if giver is not None and giver.kind == "dequantize" else node.inputs[0]
            yield node, graph.is_constant(source)


def _is_shared(graph: Graph, node: Node) -> bool:
    left, right = (graph.shape(name) for name in node.inputs)
    if not left or not right or None in (*left, *right):
        return False
    return prod(size or 1 for size in left[:-2]) != prod(size or 1 for size in right[:-2])
