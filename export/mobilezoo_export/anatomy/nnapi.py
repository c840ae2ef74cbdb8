"""What LiteRT's NNAPI delegate offers to a phone's driver: `NNAPIDelegateKernel::Validate` at NNAPI 1.3 (Android 11).

Read in google-ai-edge/LiteRT at f674577 (21 August 2026), tflite/delegates/nnapi/nnapi_delegate.cc, with the default
options of nnapi_delegate.h. The file in tensorflow/tensorflow at 002e5f4 is an older state, with fewer operators.

The driver decides next, and may take less. Left out, too, is what the delegate lets pass and NNAPI may lack: more
than four axes (the delegate checks that of some operators only), types that `AddTensor` does not map, 16-bit integers
(`IsQuantized`: not supported yet). So is what depends on more than a graph here holds: LSTM cells of five inputs, which
need certain scales, and operators that need feature level 6 or 7 of NNAPI.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mobilezoo_export.anatomy.graph import Graph, Node, Shape

SOURCE = "google-ai-edge/LiteRT tflite/delegates/nnapi/nnapi_delegate.cc (f674577) at NNAPI 1.3"
MOST_AXES = 4
MOST_PARTS = 3
"""`max_number_delegated_partitions`: the largest parts of a graph, and no more."""
MAPPED = frozenset(("float32", "float16", "int8", "uint8", "int32", "bool"))
LEVELS = {"BATCH_MATMUL": 6, "MIRROR_PAD": 7, "REVERSE_V2": 7}
"""Operator → the feature level of NNAPI from which on it may be taken."""
FLOAT = ("float32",)
EIGHT = (*FLOAT, "int8", "uint8")
NUMBERS = (*EIGHT, "int32")
Check = Callable[[Graph, Node], bool]


@dataclass(frozen=True)
class Rule:
    """Conditions on one operator."""

    newest: int | None
    """Latest version of the operator; None for any."""
    types: tuple[str, ...] = ()
    """Of its first input; empty for any."""
    check: Check = lambda graph, node: True


def takes(graph: Graph, node: Node) -> bool:
    """Whether the delegate offers an operator to the driver.

    Args:
        graph: the file's main graph.
        node: one of its operators.
    """
    rule = RULES.get(node.op)
    if rule is None or (rule.newest is not None and node.version > rule.newest) or not _is_mapped(graph, node):
        return False
    return (not rule.types or _typed(0, *rule.types)(graph, node)) and rule.check(graph, node)


def notes(graph: Graph, *, half: bool) -> tuple[str, ...]:
    """What the rules leave open for a graph.

    Args:
        graph: the file's main graph.
        half: whether weights are stored in half precision.
    """
    found = [f"it may take these operators: the driver of the phone decides, in at most {MOST_PARTS} parts"]
    if half:
        found.append("of weights in half precision it takes all that it offers to the driver, or nothing")
    later = sorted({node.op for node in graph.nodes} & LEVELS.keys())
    return (*found, *(f"{op} may be taken from feature level {LEVELS[op]} of NNAPI on" for op in later))


def _is_mapped(graph: Graph, node: Node) -> bool:
    """Whether NNAPI has the types of what is computed, and tensors of so many axes."""
    axes = [len(_shape(graph, name)) for name in (*node.inputs, *node.outputs)]
    return max(axes, default=0) <= MOST_AXES and {*map(graph.dtype, (*graph.live(node), *node.outputs))} <= MAPPED


def _shape(graph: Graph, name: str) -> Shape:
    return (graph.tensors[name].shape or ()) if name in graph.tensors else ()


def _input(node: Node, place: int) -> str:
    """Name of an input; empty for one that is left out."""
    return node.inputs[place] if place < len(node.inputs) else ""


def _typed(place: int, *types: str) -> Check:
    return lambda graph, node: graph.dtype(_input(node, place)) in types


def _gives(*types: str) -> Check:
    return lambda graph, node: graph.dtype(node.outputs[0]) in types


def _stored(*places: int, dtype: str = "") -> Check:
    """Whether inputs are constants, and of a type where one is named."""

    def check(graph: Graph, node: Node) -> bool:
        names = [_input(node, place) for place in places]
        return all(graph.is_constant(name) and dtype in ("", graph.dtype(name)) for name in names)

    return check


def _counts(*numbers: int) -> Check:
    return lambda graph, node: len(node.inputs) in numbers


def _all(*checks: Check) -> Check:
    return lambda graph, node: all(check(graph, node) for check in checks)


def _not_hybrid(place: int) -> Check:
    """Refuse integer weights of floats."""
    return lambda graph, node: not (_typed(0, *FLOAT)(graph, node) and _typed(place, "int8", "uint8")(graph, node))


def _plain(graph: Graph, node: Node) -> bool:
    return not node.activation


def _plain_integers(graph: Graph, node: Node) -> bool:
    return not node.activation or graph.dtype(node.inputs[0]) != "int32"


def _gives_axes(graph: Graph, node: Node) -> bool:
    return len(_shape(graph, node.outputs[0])) > 0


def _has_axes(place: int) -> Check:
    return lambda graph, node: len(_shape(graph, _input(node, place))) > 0


def _scalars_are_stored(graph: Graph, node: Node) -> bool:
    return all(graph.is_constant(name) for name in node.inputs if not _shape(graph, name))


def _of_reshape(graph: Graph, node: Node) -> bool:
    return _stored(1)(graph, node) if len(node.inputs) > 1 else _gives_axes(graph, node)


def _of_resize(graph: Graph, node: Node) -> bool:
    return len(_shape(graph, node.inputs[0])) == 4 and _stored(1)(graph, node)


def _of_argument(graph: Graph, node: Node) -> bool:
    axis = _input(node, 1)
    known = graph.dtype(axis) == "int32" or (graph.dtype(axis) == "int64" and graph.is_constant(axis))
    return known and _gives("int32")(graph, node)


def _of_pad(graph: Graph, node: Node) -> bool:
    return len(node.inputs) > 1 and 0 not in _shape(graph, node.inputs[0])


def _of_batches(graph: Graph, node: Node) -> bool:
    """Refuse crops other than zeros."""
    crops = _input(node, 2)
    return graph.is_constant(crops) and graph.tensors[crops].zero and _shape(graph, crops) == (2, 2)


def _of_dequantize(graph: Graph, node: Node) -> bool:
    if graph.dtype(node.inputs[0]) == "float16":
        return not graph.is_constant(node.inputs[0])
    return node.version <= 2 and _typed(0, "int8", "uint8")(graph, node)


def _of_densify(graph: Graph, node: Node) -> bool:
    """Weights of convolutions only: `AddOpsAndTensors` decodes no others."""
    readers = [one for one in graph.nodes if node.outputs[0] in one.inputs]
    return _stored(0)(graph, node) and all(one.op in ("CONV_2D", "DEQUANTIZE") for one in readers)


def _of_quantize(graph: Graph, node: Node) -> bool:
    integers = [name for name in (node.inputs[0], node.outputs[0]) if graph.dtype(name) in ("int8", "uint8")]
    return node.outputs[0] in integers and all(graph.tensors[name].scales for name in integers)


def _of_select(graph: Graph, node: Node) -> bool:
    same = _shape(graph, node.inputs[0]) == _shape(graph, _input(node, 1))
    return same and _typed(1, *NUMBERS)(graph, node)


def _of_fill(graph: Graph, node: Node) -> bool:
    """An empty list of sizes would make a scalar."""
    sizes = _stored(0)(graph, node) and _typed(0, "int32", "int64")(graph, node)
    return sizes and _gives_axes(graph, node) and _typed(1, "float32", "int32")(graph, node)


def _of_pack(graph: Graph, node: Node) -> bool:
    return node.options.get("axis", -1) not in (-1, len(_shape(graph, node.inputs[0])))


def _of_unpack(graph: Graph, node: Node) -> bool:
    axes = len(_shape(graph, node.inputs[0]))
    return axes > 1 and node.options.get("axis", -1) not in (-1, axes - 1)


def _of_split(graph: Graph, node: Node) -> bool:
    return _stored(0, dtype="int32")(graph, node) and _typed(1, *NUMBERS)(graph, node)


def _of_sizes(graph: Graph, node: Node) -> bool:
    empty = any(0 in _shape(graph, name) for name in node.outputs)
    return not empty and len(_shape(graph, _input(node, 1))) == 1 and _stored(1, 2, dtype="int32")(graph, node)


def _of_projection(graph: Graph, node: Node) -> bool:
    sparse = 1
    return node.options.get("type", sparse) != sparse or len(node.inputs) == 2


TABLE: tuple[tuple[str, Rule], ...] = (
    ("ADD", Rule(2, NUMBERS, _plain_integers)),
    ("MUL SUB", Rule(3, NUMBERS, _plain_integers)),
    ("SQUARED_DIFFERENCE", Rule(2, NUMBERS)),
    ("ABS COS DIV ELU EXP LOG LOG_SOFTMAX POW SIN SQRT", Rule(1, FLOAT)),
    ("RSQRT", Rule(2, FLOAT)),
    ("FLOOR LOCAL_RESPONSE_NORMALIZATION", Rule(1)),
    ("LEAKY_RELU PRELU", Rule(1, EIGHT)),
    ("RELU RELU6 RELU_N1_TO_1 LOGISTIC TANH", Rule(2, EIGHT)),
    ("AVERAGE_POOL_2D MAX_POOL_2D SPACE_TO_DEPTH STRIDED_SLICE", Rule(2, EIGHT)),
    ("DEPTH_TO_SPACE HARD_SWISH", Rule(None, EIGHT)),
    ("SOFTMAX", Rule(2, EIGHT, _gives(*EIGHT))),
    ("L2_POOL_2D", Rule(1, FLOAT)),
    ("L2_NORMALIZATION", Rule(2, (), _plain)),
    ("CONV_2D", Rule(5, (), _counts(3))),
    ("DEPTHWISE_CONV_2D", Rule(3)),
    ("FULLY_CONNECTED", Rule(5)),
    ("TRANSPOSE_CONV", Rule(4, (), _stored(0, 1))),
    ("RESHAPE", Rule(1, EIGHT, _of_reshape)),
    ("RESIZE_BILINEAR", Rule(3, EIGHT, _of_resize)),
    ("RESIZE_NEAREST_NEIGHBOR", Rule(3, EIGHT, _stored(1))),
    ("SQUEEZE", Rule(1)),
    ("EXPAND_DIMS", Rule(1, (*NUMBERS, "float16"), _stored(1, dtype="int32"))),
    ("TRANSPOSE", Rule(2, (), _stored(1))),
    ("CONCATENATION", Rule(2, (*EIGHT, "float16"), _plain)),
    ("PAD PADV2", Rule(2, EIGHT, _of_pad)),
    ("SPACE_TO_BATCH_ND", Rule(2)),
    ("BATCH_TO_SPACE_ND", Rule(2, (), _of_batches)),
    ("SLICE", Rule(2, NUMBERS, _all(_typed(1, "int32"), _typed(2, "int32")))),
    ("SPLIT", Rule(3, (), _of_split)),
    ("SPLIT_V", Rule(2, NUMBERS, _of_sizes)),
    ("PACK", Rule(2, ("float32", "int8"), _of_pack)),
    ("UNPACK", Rule(2, EIGHT, _of_unpack)),
    ("TILE", Rule(1, NUMBERS, _typed(1, "int32"))),
    ("GATHER", Rule(2, (*NUMBERS, "float16"), _all(_typed(1, "int32"), _has_axes(1)))),
    ("FILL", Rule(1, (), _of_fill)),
    ("MEAN", Rule(2, EIGHT, _gives_axes)),
    ("SUM REDUCE_PROD", Rule(1, FLOAT, _gives_axes)),
    ("REDUCE_MAX REDUCE_MIN", Rule(2, EIGHT, _has_axes(0))),
    ("REDUCE_ANY", Rule(2, (), _gives_axes)),
    ("ARG_MAX ARG_MIN", Rule(2, (*NUMBERS, "float16"), _of_argument)),
    ("TOPK_V2", Rule(2, NUMBERS, _stored(1, dtype="int32"))),
    ("MAXIMUM MINIMUM", Rule(3, NUMBERS, _scalars_are_stored)),
    ("NEG", Rule(2, ("float32", "int32"))),
    ("EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL", Rule(2, (*NUMBERS, "bool"))),
    ("LOGICAL_AND LOGICAL_NOT LOGICAL_OR", Rule(1, ("bool",))),
    ("SELECT", Rule(2, (), _of_select)),
    ("CAST", Rule(1, NUMBERS, _gives(*NUMBERS))),
    ("QUANTIZE", Rule(2, EIGHT, _of_quantize)),
    ("DEQUANTIZE", Rule(None, (), _of_dequantize)),
    ("DENSIFY", Rule(None, (), _of_densify)),
    ("EMBEDDING_LOOKUP", Rule(1, (), _typed(1, *FLOAT))),
    ("HASHTABLE_LOOKUP", Rule(1, (), _gives(*FLOAT))),
    ("LSH_PROJECTION", Rule(1, (), _of_projection)),
    ("RNN SVDF", Rule(1, (), _all(_counts(5), _typed(1, *FLOAT)))),
    ("LSTM", Rule(3, (), _all(_counts(20, 24), _typed(4, *EIGHT)))),
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", Rule(2, (), _all(_counts(20, 24), _not_hybrid(2)))),
    ("BIDIRECTIONAL_SEQUENCE_LSTM", Rule(1, (), _not_hybrid(2))),
    ("UNIDIRECTIONAL_SEQUENCE_RNN", Rule(1, (), _not_hybrid(1))),
)
RULES = {op: rule for names, rule in TABLE for op in names.split()}
