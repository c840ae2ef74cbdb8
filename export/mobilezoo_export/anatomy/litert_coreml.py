"""What LiteRT's Core ML delegate takes: `IsNodeSupportedByDelegate`, and the conditions in builders/ that it checks.

Read in google-ai-edge/LiteRT at f674577 (21 August 2026), tflite/delegates/coreml. Judged for Core ML 3, which it
chooses from iOS 13 on: there it takes no RESHAPE. Which axes MEAN and PAD work on follows from the shapes of results.
"""

from collections.abc import Callable
from math import prod

from mobilezoo_export.anatomy.graph import Graph, Node

SOURCE = "google-ai-edge/LiteRT tflite/delegates/coreml/coreml_delegate.mm (f674577) at Core ML 3"
LEAST = 2
"""`kMinNodesPerCoreMlDelegate`: operators of the smallest part."""
NEWEST = {"DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 6}
"""Latest version of an operator; the first for all others."""
LARGEST_KERNEL = 16384
STORED = ("float32", "float16")
Check = Callable[[Graph, Node], bool]


def takes(graph: Graph, node: Node) -> bool:
    """Whether the delegate takes an operator.

    Args:
        graph: the file's main graph, constants in half precision read in place (`rules.read_halves`).
        node: one of its operators.
    """
    check = CHECKS.get(node.op)
    first = 2 if node.op == "TRANSPOSE_CONV" else 0
    if check is None or node.version > NEWEST.get(node.op, 1) or len(node.inputs) <= first:
        return False
    return graph.dtype(node.inputs[first]) == "float32" and check(graph, node)


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    """A tensor's shape when the file is loaded: open sizes are one."""
    return tuple(1 if size is None else size for size in (graph.tensors[name].shape or ())) if name else ()


def _four(graph: Graph, name: str) -> tuple[int, ...]:
    shape = _shape(graph, name)
    return (1,) * (4 - len(shape)) + shape


def _is_stored(graph: Graph, node: Node, place: int) -> bool:
    """Whether an input is a constant of floats."""
    name = node.inputs[place] if place < len(node.inputs) else ""
    return graph.is_constant(name) and graph.dtype(name) in STORED


def _always(graph: Graph, node: Node) -> bool:
    return True


def _plain(graph: Graph, node: Node) -> bool:
    return not node.activation


def _of_two(graph: Graph, node: Node) -> bool:
    """Float tensors that Core ML spreads over each other."""
    floats = all(graph.dtype(n) == "float32" or _is_stored(graph, node, i) for i, n in enumerate(node.inputs))
    if len(node.inputs) != 2 or not floats or any(len(_shape(graph, name)) > 4 for name in node.inputs):
        return False
    a, b = (_four(graph, name) for name in node.inputs)
    single = any(graph.is_constant(name) and prod(_shape(graph, name)) == 1 for name in node.inputs)
    maps = a[1:3] == b[1:3] or (1, 1) in (a[1:3], b[1:3])
    return (a[0] == b[0] or single) and maps and (a[3] == b[3] or 1 in (a[3], b[3]))


def _of_concatenation(graph: Graph, node: Node) -> bool:
    """Along the last axis only."""
    axes = len(_shape(graph, node.inputs[0]))
    last = axes in (3, 4) and node.options.get("axis") in (-1, axes - 1)
    return last and len(node.inputs) > 1 and _plain(graph, node)


def _of_convolution(graph: Graph, node: Node) -> bool:
    kernel = _shape(graph, node.inputs[1])[1:3] if len(node.inputs) > 1 else ()
    stored = _is_stored(graph, node, 1) and max(kernel, default=0) <= LARGEST_KERNEL
    if node.op == "TRANSPOSE_CONV":
        return stored and graph.is_constant(node.inputs[0])
    return stored and _is_stored(graph, node, 2) and node.activation != "SIGN_BIT"


def _of_fully_connected(graph: Graph, node: Node) -> bool:
    """Of a single row."""
    shape = _shape(graph, node.inputs[0])
    stored = _is_stored(graph, node, 1) and (not "".join(node.inputs[2:]) or _is_stored(graph, node, 2))
    single = bool(shape) and prod(shape) == shape[-1]
    return stored and single and node.activation != "SIGN_BIT" and node.options.get("weightsFormat", 0) == 0


def _keeps_ends(graph: Graph, node: Node) -> bool:
    """Whether the result of four axes has the batch and channels of its input."""
    given, made = _shape(graph, node.inputs[0]), _shape(graph, node.outputs[0])
    return len(given) == len(made) == 4 and (given[0], given[3]) == (made[0], made[3])


def _of_mean(graph: Graph, node: Node) -> bool:
    return bool(node.options.get("keepDims")) and _keeps_ends(graph, node)


def _of_pad(graph: Graph, node: Node) -> bool:
    sizes = node.inputs[1] if len(node.inputs) > 1 else ""
    return graph.is_constant(sizes) and _keeps_ends(graph, node)


def _of_mirror(graph: Graph, node: Node) -> bool:
    reflect = 0
    return node.options.get("mode") == reflect and _of_pad(graph, node)


def _of_resize(graph: Graph, node: Node) -> bool:
    return len(node.inputs) > 1 and graph.is_constant(node.inputs[1])


def _of_softmax(graph: Graph, node: Node) -> bool:
    return node.options.get("beta") == 1.0


CHECKS: dict[str, Check] = {
    "ADD": _of_two,
    "MUL": _of_two,
    "AVERAGE_POOL_2D": _plain,
    "MAX_POOL_2D": _plain,
    "CONCATENATION": _of_concatenation,
    "CONV_2D": _of_convolution,
    "DEPTHWISE_CONV_2D": _of_convolution,
    "TRANSPOSE_CONV": _of_convolution,
    "FULLY_CONNECTED": _of_fully_connected,
    "MEAN": _of_mean,
    "PAD": _of_pad,
    "PADV2": _of_pad,
    "MIRROR_PAD": _of_mirror,
    "RESIZE_BILINEAR": _of_resize,
    "SOFTMAX": _of_softmax,
    **dict.fromkeys(("HARD_SWISH", "LOGISTIC", "RELU", "RELU_N1_TO_1", "RELU6", "TANH"), _always),
}
