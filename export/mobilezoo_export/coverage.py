"""What is in an exported file, how much of it XNNPACK takes, and what is known to fall back on phones.

LiteRT: the interpreter replaces each partition by a DELEGATE node and keeps the replaced nodes; those between a
partition's inputs and outputs were taken. ExecuTorch: the program lists delegate calls and kernel calls. ONNX and
Core ML files tell their operators only: what a phone's provider or Core ML takes is decided on the phone.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from mobilezoo.artifacts import Coverage
from mobilezoo_export.quiet import quiet

XNNPACK_OPS = "XNNPACK delegate's README, tensorflow/tensorflow tensorflow/lite/delegates/xnnpack"
GPU_OPS = "ai.google.dev/edge/litert/performance/gpu"
PORTABLE = "docs.pytorch.org/executorch, XNNPACK backend"
PROVIDERS = "onnxruntime.ai/docs/execution-providers, NNAPI and CoreML"
ANE = "machinelearning.apple.com/research/neural-engine-transformers"
BORDERS = 2
"""Transposes that a file may keep without a word."""
DEEPEST = {"litert": 4, "onnx": 4, "coreml": 5, "executorch": 6}
TOO_DEEP = {
    "litert": f"GPU delegates take at most 4 dimensions [{GPU_OPS}]",
    "onnx": f"NNAPI takes at most 4 dimensions [{PROVIDERS}]",
    "coreml": "Core ML takes at most 5 dimensions [apple.github.io/coremltools, reshape]",
    "executorch": f"XNNPACK takes at most 6 dimensions [{PORTABLE}]",
}


class Rule(NamedTuple):
    """An operator that phones' accelerators are known to refuse or to be slow at."""

    target: str
    ops: tuple[str, ...]
    why: str
    source: str


RULES = (
    Rule("litert", ("GATHER", "GATHER_ND"), "not taken by XNNPACK and by most GPU delegates", GPU_OPS),
    Rule("litert", ("CAST", "SELECT_V2", "CUMSUM", "TOPK_V2"), "may leave the GPU delegate", GPU_OPS),
    Rule("litert", ("GROUP_NORM", "CUSTOM"), "no delegate knows it", XNNPACK_OPS),
    Rule("onnx", ("Gather", "GatherND", "ScatterND", "Loop", "If", "NonZero"), "splits provider graphs", PROVIDERS),
    Rule("coreml", ("gather", "gather_along_axis", "gather_nd", "scatter_nd"), "leaves the Neural Engine", ANE),
)


def coverage(target: str, path: Path) -> Coverage | None:
    """Operators and delegation of a file that its runtime can load; None for a format without a reader."""
    if target not in READERS:
        return None
    ops, partitions, outside, ranks = READERS[target](path)
    return Coverage(
        ops=dict(sorted(ops.items())),
        partitions=partitions,
        outside=None if outside is None else dict(sorted(outside.items())),
        warnings=tuple(_warnings(target, ops, outside, ranks)),
    )


Reading = tuple[Counter[str], int | None, Counter[str] | None, list[int | None]]
"""Operators, partitions, operators outside of them, and the ranks of all tensors (None where a size is dynamic)."""


def _litert(path: Path) -> Reading:
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    made_by = {int(tensor): node for node in own for tensor in node["outputs"]}
    taken = {node["index"] for delegate in delegates for node in _inside(delegate, made_by)}
    outside = Counter(str(node["op_name"]) for node in own if node["index"] not in taken)
    tensors = interpreter.get_tensor_details()
    ranks = [None if -1 in t["shape_signature"] else len(t["shape"]) for t in tensors]
    return Counter(str(node["op_name"]) for node in own), len(delegates), outside, ranks


def _inside(delegate: dict[str, Any], made_by: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes between a partition's outputs and its inputs."""
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


def _onnx(path: Path) -> Reading:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output, *graph.value_info)]
    ranks = [None if any(not d.HasField("dim_value") for d in dims) else len(dims) for dims in shapes]
    return Counter(str(node.op_type) for node in graph.node), None, None, ranks


def _coreml(path: Path) -> Reading:
    with quiet():
        import coremltools as ct

        spec = ct.utils.load_spec(str(path))
    (function,) = spec.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    kinds = Counter(str(op.type) for op in block.operations if op.type != "const")
    ranks = [int(out.type.tensorType.rank) for op in block.operations for out in op.outputs if out.type.tensorType.rank]
    return kinds, None, None, list(ranks)


def _executorch(path: Path) -> Reading:
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
    calls = [call.instr_args for chain in plan.chains for call in chain.instructions]
    outside = Counter(
        plan.operators[call.op_index].name.removeprefix("aten::")
        for call in calls
        if type(call).__name__ == "KernelCall"
    )
    partitions = sum(type(call).__name__ == "DelegateCall" for call in calls)
    return outside + Counter({"XNNPACK partition": partitions}), partitions, outside, []


READERS = {"litert": _litert, "onnx": _onnx, "coreml": _coreml, "executorch": _executorch}


def _warnings(target: str, ops: Counter[str], outside: Counter[str] | None, ranks: list[int | None]) -> list[str]:
    found = []
    if outside:
        listed = ", ".join(f"{count} {name}" for name, count in outside.most_common(4))
        source = PORTABLE if target == "executorch" else XNNPACK_OPS
        found.append(f"{outside.total()} operators outside XNNPACK ({listed}) [{source}]")
    for rule in RULES:
        hits = [f"{ops[name]} {name}" for name in rule.ops if rule.target == target and ops[name]]
        if hits:
            found.append(f"{', '.join(hits)}: {rule.why} [{rule.source}]")
    if ops["TRANSPOSE"] > BORDERS:
        found.append(f"{ops['TRANSPOSE']} transposes copy whole tensors [{XNNPACK_OPS}]")
    if None in ranks:
        found.append(f"dynamic shapes: NNAPI and most delegates take static ones only [{PROVIDERS}]")
    deep = max((rank for rank in ranks if rank is not None), default=0)
    if deep > DEEPEST[target]:
        found.append(f"{deep}-D tensors: {TOO_DEEP[target]}")
    return found
