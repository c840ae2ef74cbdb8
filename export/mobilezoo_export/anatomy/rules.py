"""What Core ML and NNAPI take of a file, by the sources that the runtimes publish; nothing is run.

LiteRT's delegates are judged by the conditions of their source (`litert_coreml`, `nnapi`), those of ONNX Runtime by
lists of operators alone: microsoft/onnxruntime at 04f568d (Core ML) and 07e8de2 (NNAPI). A device may take less.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from mobilezoo.doctor_report import UnitVerdict
from mobilezoo_export.anatomy import litert_coreml, nnapi
from mobilezoo_export.anatomy.graph import Graph, Node

DEPRECATED = "NNAPI is deprecated since Android 15 [developer.android.com/ndk/guides/neuralnetworks/migration-guide]"
ONNX_COREML = "microsoft/onnxruntime tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md (04f568d)"
ONNX_NNAPI = (
    "microsoft/onnxruntime onnxruntime/core/providers/nnapi/nnapi_builtin/builders/op_builder_factory.cc (07e8de2)"
)
ANE = "machinelearning.apple.com/research/neural-engine-transformers"
LISTED = "it may take these operators: the list states no types, versions and options"
OPEN_ONNX = "inputs of open size: it may take them, more slowly [onnxruntime.ai, onlyAllowStaticInputShapes]"
OPEN_LITERT = "sizes that inputs leave open count as 1, which is what a file is loaded with"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
SIZES = {
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "BROADCAST_TO": (1,),
    "EXPAND_DIMS": (1,),
    "FILL": (0,),
    "MIRROR_PAD": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "TILE": (1,),
    "TOPK_V2": (1,),
    "TRANSPOSE_CONV": (0,),
}
"""LiteRT operator → inputs that say how large its result is."""


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """What takes operators, and how."""

    unit: str
    takes: Callable[[Graph, Node], bool]
    source: str
    notes: tuple[str, ...]
    least: int = 1
    """Operators of its smallest part."""
    parts: int | None = None
    """The most parts that it takes, the largest first."""


def judge(graph: Graph, target: str) -> list[UnitVerdict]:
    """What Core ML and NNAPI take of a file.

    Args:
        graph: the file's main graph.
        target: its format.
    """
    if target == "litert":
        return _of_litert(graph)
    if target == "onnx":
        return _of_onnx(graph)
    if target == "coreml":
        return [_own_coreml(graph), _not_for("nnapi", "Core ML packages run on Apple's systems only")]
    if target == "executorch":
        return [_compiled(graph, "coreml", "CoreMLBackend"), _not_for("nnapi", "ExecuTorch has no NNAPI delegate")]
    return []


def _of_litert(graph: Graph) -> list[UnitVerdict]:
    whole = read_halves(graph)
    shared: tuple[str, ...] = (OPEN_LITERT,) if _opened(graph) else ()
    if resized := sorted({node.op for node in whole.nodes if _is_resized(whole, node)}):
        shared += (
            f"sizes come from computed values ({', '.join(resized)}): it may take nothing, for LiteRT refuses it a "
            "graph whose sizes it cannot tell when it loads the file",
        )
    coreml = Delegate(
        unit="coreml",
        takes=litert_coreml.takes,
        source=litert_coreml.SOURCE,
        notes=(f"it takes float operators only, in parts of at least {litert_coreml.LEAST}", *shared),
        least=litert_coreml.LEAST,
    )
    half = len(whole.nodes) < len(graph.nodes)
    android = Delegate(
        unit="nnapi",
        takes=nnapi.takes,
        source=nnapi.SOURCE,
        notes=(*nnapi.notes(whole, half=half), *shared, DEPRECATED),
        parts=nnapi.MOST_PARTS,
    )
    return [_counted(whole, coreml), _counted(whole, android)]


def _of_onnx(graph: Graph) -> list[UnitVerdict]:
    notes: tuple[str, ...] = ("as an ML Program, through ONNX Runtime's Core ML provider", LISTED)
    notes += (OPEN_ONNX,) if _opened(graph) else ()
    coreml = Delegate(unit="coreml", takes=_listed(COREML_OF_ONNX), source=ONNX_COREML, notes=notes)
    takes = _listed(NNAPI_OF_ONNX, axes=nnapi.MOST_AXES)
    android = Delegate(unit="nnapi", takes=takes, source=ONNX_NNAPI, notes=(LISTED, DEPRECATED))
    if _opened(graph):
        reason = "its inputs leave sizes open, and fixed ones are needed: export it with its size"
        refused = _not_for("nnapi", reason).model_copy(update={"source": ONNX_NNAPI, "notes": (DEPRECATED,)})
        return [_counted(graph, coreml), refused]
    return [_counted(graph, coreml), _counted(graph, android)]


def read_halves(graph: Graph) -> Graph:
    """The graph as LiteRT's delegates see it: constants in half precision are read in place, without a DEQUANTIZE.

    Args:
        graph: the main graph of a LiteRT file.
    """
    halves = {
        node.outputs[0]: node.inputs[0]
        for node in graph.nodes
        if node.op == "DEQUANTIZE" and graph.is_constant(node.inputs[0]) and graph.dtype(node.inputs[0]) == "float16"
    }
    nodes = tuple(
        replace(node, inputs=tuple(halves.get(name, name) for name in node.inputs))
        for node in graph.nodes
        if not halves.keys() & set(node.outputs)
    )
    return replace(graph, nodes=nodes)


def _opened(graph: Graph) -> bool:
    return any(None in (graph.tensors[name].shape or ()) for name in graph.inputs if name in graph.tensors)


def _is_resized(graph: Graph, node: Node) -> bool:
    """Whether the size of an operator's result is computed at run time."""
    named = [node.inputs[place] for place in SIZES.get(node.op, ()) if place < len(node.inputs)]
    return any(name and not graph.is_constant(name) for name in named)


def _listed(known: frozenset[str], *, axes: int | None = None) -> Callable[[Graph, Node], bool]:
    """Whether an operator is on a list, and its tensors' axes are few."""

    def takes(graph: Graph, node: Node) -> bool:
        ranks = [len(graph.tensors[n].shape or ()) for n in (*node.inputs, *node.outputs) if n in graph.tensors]
        return node.op in known and (axes is None or max(ranks, default=0) <= axes)

    return takes


def _counted(graph: Graph, delegate: Delegate) -> UnitVerdict:
    """Count what a delegate takes."""
    able = {index for index, node in enumerate(graph.nodes) if delegate.takes(graph, node)}
    found = [part for part in partitions(graph, able) if len(part) >= delegate.least]
    parts = sorted(found, key=len, reverse=True)[: delegate.parts]
    kept = {index for part in parts for index in part}
    outside = Counter(node.op for index, node in enumerate(graph.nodes) if index not in kept)
    return UnitVerdict(
        unit=delegate.unit,
        how="rules",
        status="none" if not parts else "partly" if outside else "taken",
        partitions=len(parts),
        outside=dict(outside.most_common()),
        notes=delegate.notes,
        source=delegate.source,
    )


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
