"""What Core ML and NNAPI take of a file, by the lists that the runtimes publish; nothing is run.

A list states operators. Conditions on single operators (constant weights, modes) are more than a list can hold, so that
a device may take less than these rules promise, and never more.
"""

from collections import Counter
from collections.abc import Callable

from mobilezoo.doctor_report import UnitVerdict
from mobilezoo_export.anatomy.graph import Graph, Node

DEPRECATED = "NNAPI is deprecated since Android 15 [developer.android.com/ndk/guides/neuralnetworks/migration-guide]"
LITERT_COREML = "tensorflow/tensorflow tensorflow/lite/delegates/coreml/coreml_delegate.mm"
LITERT_NNAPI = "tensorflow/tensorflow tensorflow/lite/delegates/nnapi/nnapi_delegate.cc"
ONNX_COREML = "microsoft/onnxruntime tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md"
ONNX_NNAPI = "microsoft/onnxruntime onnxruntime/core/providers/nnapi/nnapi_builtin/builders/op_builder_factory.cc"
ANE = "machinelearning.apple.com/research/neural-engine-transformers"
MOST_AXES = 4
LEAST = 2
"""`kMinNodesPerCoreMlDelegate` of LiteRT's Core ML delegate."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


COREML_OF_LITERT = _names(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED HARD_SWISH LOGISTIC MAX_POOL_2D
    MIRROR_PAD MEAN MUL PAD PADV2 RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR SOFTMAX TANH TRANSPOSE_CONV
    """
)
NNAPI_OF_LITERT = _names(
    """
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BIDIRECTIONAL_SEQUENCE_LSTM CAST
    CONCATENATION CONV_2D DENSIFY DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL
    FLOOR FULLY_CONNECTED GATHER GREATER GREATER_EQUAL HARD_SWISH HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
    LEAKY_RELU LESS LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC
    LSH_PROJECTION LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU
    QUANTIZE REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RNN RSQRT SELECT SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V
    SQRT SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN UNPACK
    """
)
COREML_OF_ONNX = _names(
    """
    Add ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu Erf Exp GatherND
    Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid Identity
    InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow Range Reciprocal
    ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt
    Squeeze Sub Tanh Tile Transpose Unsqueeze com.microsoft:QuickGelu com.microsoft:FusedConv
    """
)
NNAPI_OF_ONNX = _names(
    """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace DequantizeLinear Div Elu Exp
    Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Identity LRN LeakyRelu Log MatMul Max MaxPool Min
    Mul Neg PRelu Pad Pow QLinearAdd QLinearAveragePool QLinearConv QLinearMatMul QLinearMul QLinearSigmoid
    QuantizeLinear ReduceMean Relu Reshape Resize Sigmoid Sin Slice Softmax Sqrt Squeeze Sub Tanh Transpose
    Unsqueeze
    """
)
OFF_ANE = _names("gather gather_along_axis gather_nd scatter scatter_nd scatter_along_axis while_loop cond")
"""Operations that leave the Neural Engine."""
Takes = Callable[[Graph, Node], bool]


def judge(graph: Graph, target: str) -> list[UnitVerdict]:
    """What Core ML and NNAPI take of a file.

    Args:
        graph: the file's main graph.
        target: its format.
    """
    if target == "litert":
        notes = (f"the Core ML delegate takes float operators only, in parts of at least {LEAST}",)
        return [
            _counted(graph, "coreml", _listed(COREML_OF_LITERT, floats=True), LITERT_COREML, notes, LEAST),
            _counted(graph, "nnapi", _listed(NNAPI_OF_LITERT, axes=MOST_AXES), LITERT_NNAPI, (DEPRECATED,)),
        ]
    if target == "onnx":
        notes = ("as an ML Program, through ONNX Runtime's Core ML provider",)
        return [
            _counted(graph, "coreml", _listed(COREML_OF_ONNX), ONNX_COREML, notes),
            _counted(graph, "nnapi", _listed(NNAPI_OF_ONNX, axes=MOST_AXES), ONNX_NNAPI, (DEPRECATED,)),
        ]
    if target == "coreml":
        return [_own_coreml(graph), _not_for("nnapi", "Core ML packages run on Apple's systems only")]
    if target == "executorch":
        return [_compiled(graph, "coreml", "CoreMLBackend"), _not_for("nnapi", "ExecuTorch has no NNAPI delegate")]
    return []


def _listed(known: frozenset[str], *, axes: int | None = None, floats: bool = False) -> Takes:
    """Whether an operator is on a list, its tensors' axes are few, and its types are floats where only those go."""

    def takes(graph: Graph, node: Node) -> bool:
        ranks = [len(graph.tensors[n].shape or ()) for n in (*node.inputs, *node.outputs) if n in graph.tensors]
        deep = axes is not None and max(ranks, default=0) > axes
        types = {graph.dtype(name) for name in (*graph.live(node), *node.outputs)}
        return node.op in known and not deep and not (floats and types & {"int8", "uint8", "int16"})

    return takes


def _counted(graph: Graph, unit: str, takes: Takes, source: str, notes: tuple[str, ...], least: int = 1) -> UnitVerdict:
    """Count what a delegate takes, in parts of at least `least` operators."""
    shapes = [graph.tensors[name].shape or () for name in graph.inputs if name in graph.tensors]
    # the Core ML delegates take the batch that an input has when the file is loaded
    if any(None in (shape if unit == "nnapi" else shape[1:]) for shape in shapes):
        reason = "its inputs leave sizes open, and fixed ones are needed: export it with its size"
        return UnitVerdict(unit=unit, how="rules", status="refused", reason=reason, source=source, notes=notes)
    able = {index for index, node in enumerate(graph.nodes) if _is_free(graph, node) or takes(graph, node)}
    working = {index for index in able if not _is_free(graph, graph.nodes[index])}
    parts = [part for part in partitions(graph, able) if len(working & set(part)) >= least]
    kept = {index for part in parts for index in part}
    outside = Counter(n.op for index, n in enumerate(graph.nodes) if index not in kept and not _is_free(graph, n))
    return UnitVerdict(
        unit=unit,
        how="rules",
        status="none" if not parts else "partly" if outside else "taken",
        partitions=len(parts),
        outside=dict(outside.most_common()),
        notes=notes,
        source=source,
    )


def _is_free(graph: Graph, node: Node) -> bool:
    """Whether a node decodes stored weights, which delegates do when they load a file."""
    return node.kind in ("dequantize", "densify") and all(graph.is_constant(name) for name in node.inputs if name)


def partitions(graph: Graph, taken: set[int]) -> list[list[int]]:
    """Parts that a delegate makes of the operators it takes: each as large as their order allows.

    Args:
        graph: the main graph of a file.
        taken: indices of the operators that the delegate takes.

    Returns:
        The indices in each part.
    """
    waiting = dict(enumerate(graph.nodes))
    made = {out for node in graph.nodes for out in node.outputs}
    ready: set[str] = set()
    parts: list[list[int]] = []
    side, idle = False, 0
    while waiting and idle < 2:  # none of the two sides goes on where the graph has a cycle: no runtime takes it
        moved = []
        for index, node in list(waiting.items()):
            if (index in taken) == side and all(name in ready or name not in made for name in node.inputs):
                ready |= set(node.outputs)
                del waiting[index]
                moved.append(index)
        parts += [moved] if side and moved else []
        side, idle = not side, 0 if moved else idle + 1
    return parts


def _own_coreml(graph: Graph) -> UnitVerdict:
    """A package runs in Core ML; which of its operations leave the Neural Engine is by Apple's own advice."""
    outside = Counter(node.op for node in graph.nodes if node.op in OFF_ANE)
    opened = [name for name in graph.inputs if None in (graph.tensors[name].shape or ())]
    notes = ["Core ML runs all operations; outside are those that leave the Neural Engine"]
    notes += ["inputs of open size leave the Neural Engine"] if opened else []
    return UnitVerdict(
        unit="coreml",
        how="rules",
        status="partly" if outside or opened else "taken",
        outside=dict(outside),
        notes=tuple(notes),
        source=ANE,
    )


def _compiled(graph: Graph, unit: str, delegate: str) -> UnitVerdict:
    """A program holds the delegates that it was compiled for."""
    if delegate not in graph.delegates:
        return _not_for(unit, f"compiled for {', '.join(dict.fromkeys(graph.delegates)) or 'no delegate'}")
    outside = Counter(node.op for node in graph.nodes if node.op != delegate)
    return UnitVerdict(
        unit=unit,
        how="rules",
        status="partly" if outside else "taken",
        partitions=graph.delegates.count(delegate),
        outside=dict(outside),
        source="the program's own delegate calls",
    )


def _not_for(unit: str, reason: str) -> UnitVerdict:
    return UnitVerdict(unit=unit, how="rules", status="refused", reason=reason)
