"""Operators of an exported file, the share of them that XNNPACK takes, and known fallbacks on phones.

LiteRT: the interpreter replaces each partition by a DELEGATE node and keeps the replaced nodes; those between a
partition's inputs and outputs were taken. ExecuTorch: the program lists delegate calls and kernel calls. ONNX and
Core ML files list operators only: the phone's provider, or Core ML, decides what to delegate.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Coverage
from mobilezoo_export.contract import Exporter
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import Limits, Reading, Rule

XNNPACK_OPS = "XNNPACK delegate's README, tensorflow/tensorflow tensorflow/lite/delegates/xnnpack"
GPU_OPS = "ai.google.dev/edge/litert/performance/gpu"
PORTABLE = "docs.pytorch.org/executorch, XNNPACK backend"
PROVIDERS = "onnxruntime.ai/docs/execution-providers, NNAPI and CoreML"
ANE = "machinelearning.apple.com/research/neural-engine-transformers"
BORDERS = 2
"""Transposes that a file may keep without a warning."""
LITERT = Limits(
    (
        Rule(("GATHER", "GATHER_ND"), "not taken by XNNPACK and by most GPU delegates", GPU_OPS),
        Rule(("CAST", "SELECT_V2", "CUMSUM", "TOPK_V2"), "may leave the GPU delegate", GPU_OPS),
        Rule(("GROUP_NORM", "CUSTOM"), "no delegate knows it", XNNPACK_OPS),
    ),
    4,
    f"GPU delegates take at most 4 dimensions [{GPU_OPS}]",
    XNNPACK_OPS,
)
ONNX = Limits(
    (Rule(("Gather", "GatherND", "ScatterND", "Loop", "If", "NonZero"), "splits provider graphs", PROVIDERS),),
    4,
    f"NNAPI takes at most 4 dimensions [{PROVIDERS}]",
)
COREML = Limits(
    (Rule(("gather", "gather_along_axis", "gather_nd", "scatter_nd"), "leaves the Neural Engine", ANE),),
    5,
    "Core ML takes at most 5 dimensions [apple.github.io/coremltools, reshape]",
)
EXECUTORCH = Limits((), 6, f"XNNPACK takes at most 6 dimensions [{PORTABLE}]", PORTABLE)


def coverage(exporter: Exporter, path: Path) -> Coverage | None:
    """Describe the operators of a file and how many of them the delegate takes.

    Args:
        exporter: the file's target.
        path: a file that its runtime can load.

    Returns:
        Operator counts, partitions and warnings; None for a format without a reader.
    """
    found = exporter.reading(path)
    if found is None:
        return None
    return Coverage(
        ops=dict(sorted(found.ops.items())),
        partitions=found.partitions,
        outside=None if found.outside is None else dict(sorted(found.outside.items())),
        warnings=tuple(_warnings(exporter.limits, found)),
    )


def read_litert(path: Path) -> Reading:
    """Read a LiteRT file's operators, XNNPACK partitions and tensor ranks."""
    interpreter = _allocated(path)
    own, outside, partitions = _split(interpreter)
    tensors = interpreter.get_tensor_details()
    ranks = [None if -1 in t["shape_signature"] else len(t["shape"]) for t in tensors]
    kinds = Counter(str(node["op_name"]) for node in own)
    return Reading(kinds, partitions, Counter(str(node["op_name"]) for node in outside), ranks)


def outside_litert(path: Path) -> tuple[set[str], int]:
    """Names of the outputs of operators that XNNPACK leaves to LiteRT, and the number of its partitions."""
    interpreter = _allocated(path)
    _, outside, partitions = _split(interpreter)
    names = {int(detail["index"]): str(detail["name"]) for detail in interpreter.get_tensor_details()}
    return {names[int(tensor)] for node in outside for tensor in node["outputs"]}, partitions


def _allocated(path: Path) -> Any:
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    return interpreter


def _split(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """(operators of the file, those that no partition took, number of partitions)."""
    nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    made_by = {int(tensor): node for node in own for tensor in node["outputs"]}
    taken = {node["index"] for delegate in delegates for node in _inside(delegate, made_by)}
    return own, [node for node in own if node["index"] not in taken], len(delegates)


def _inside(delegate: dict[str, Any], made_by: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes between a partition's inputs and its outputs."""
    stop, pending = {int(t) for t in delegate["inputs"]}, [int(t) for t in delegate["outputs"]]
    found: dict[int, dict[str, Any]] = {}
    while pending:
        tensor = pending.pop()
        node = made_by.get(tensor)
        if tensor in stop or node is None or node["index"] in found:
            continue
        found[node["index"]] = node
        pending += [int(t) for t in node["inputs"]]
    return list(found.values())


def read_onnx(path: Path) -> Reading:
    """Read an ONNX file's operators and tensor ranks."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output, *graph.value_info)]
    ranks = [None if any(not d.HasField("dim_value") for d in dims) else len(dims) for dims in shapes]
    return Reading(Counter(str(node.op_type) for node in graph.node), ranks=ranks)


def read_coreml(path: Path) -> Reading:
    """Read the operators and tensor ranks of a Core ML package."""
    with quiet():
        import coremltools as ct

        spec = ct.utils.load_spec(str(path))
    (function,) = spec.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    kinds = Counter(str(op.type) for op in block.operations if op.type != "const")
    ranks = [int(out.type.tensorType.rank) for op in block.operations for out in op.outputs if out.type.tensorType.rank]
    return Reading(kinds, ranks=list(ranks))


def read_executorch(path: Path) -> Reading:
    """Read an ExecuTorch program's kernel calls and delegate calls."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
    calls = [call.instr_args for chain in plan.chains for call in chain.instructions]
    outside = Counter(
        plan.operators[call.op_index].name.removeprefix("aten::")
        for call in calls
        if type(call).__name__ == "KernelCall"
    )
    partitions = sum(type(call).__name__ == "DelegateCall" for call in calls)
    return Reading(outside + Counter({"XNNPACK partition": partitions}), partitions, outside)


def _warnings(limits: Limits, found: Reading) -> list[str]:
    warnings, ops, outside, ranks = [], found.ops, found.outside, found.ranks
    if outside:
        listed = ", ".join(f"{count} {name}" for name, count in outside.most_common(4))
        warnings.append(f"{outside.total()} operators outside XNNPACK ({listed}) [{limits.delegate}]")
    for rule in limits.rules:
        hits = [f"{ops[name]} {name}" for name in rule.ops if ops[name]]
        if hits:
            warnings.append(f"{', '.join(hits)}: {rule.why} [{rule.source}]")
    if ops["TRANSPOSE"] > BORDERS:
        warnings.append(f"{ops['TRANSPOSE']} transposes copy whole tensors [{XNNPACK_OPS}]")
    if None in ranks:
        warnings.append(f"dynamic shapes: NNAPI and most delegates take static ones only [{PROVIDERS}]")
    deep = max((rank for rank in ranks if rank is not None), default=0)
    if limits.deepest is not None and deep > limits.deepest:
        warnings.append(f"{deep}-D tensors: {limits.too_deep}")
    return warnings
