"""A file's anatomy: its graph counted, weighed and judged by rules."""

from collections import Counter
from pathlib import Path

from mobilezoo.doctor_report import Anatomy
from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.anatomy.findings import find
from mobilezoo_export.anatomy.graph import FLOATS, Graph, Tensor
from mobilezoo_export.anatomy.rules import judge
from mobilezoo_export.registry import exporter_of

BIGGEST = 8
SMALL = ("int8", "uint8", "int4", "uint4", "int2", "uint2", "uint1", "uint3", "uint6")
"""Types of weights in a byte or less."""


def describe(path: Path) -> Anatomy:
    """Read a file without running it.

    A damaged file may end the process: `apart.read_anatomy` does this in a separate one.

    Args:
        path: an exported file, whoever made it.

    Raises:
        ExportError: the format has no reader, or the file is damaged.
    """
    exporter = exporter_of(path)
    try:
        graph = exporter.graph(path)
    except (ExportError, OSError):
        raise
    except Exception as error:  # readers of flatbuffers and protobufs raise whatever damaged bytes lead to
        raise ExportError(f"{path.name!r} is damaged: {type(error).__name__}: {first_line(error, 160)}") from error
    if graph is None:
        raise ExportError(f"{path.name!r}: files of {exporter.target!r} have no reader here")
    return anatomy_of(graph, exporter.target)


def anatomy_of(graph: Graph, target: str) -> Anatomy:
    """Count and weigh a graph.

    Args:
        graph: the main graph of a file.
        target: its format.
    """
    held = [t for t in graph.tensors.values() if t.stored_bytes and t.dtype not in ("string", "bool")]
    stored = sorted(held, key=lambda t: -(t.stored_bytes or 0))
    weight_types: Counter[str] = Counter()
    for tensor in stored:
        weight_types[tensor.dtype or "unknown"] += tensor.stored_bytes or 0
    computed = Counter(t.dtype for t in _computed(graph) if t.dtype)
    ops = Counter(node.op for node in graph.nodes) + graph.further + graph.delegated
    return Anatomy(
        target=target,
        producer=graph.producer,
        inputs=tuple(graph.tensors[name].facts() for name in graph.inputs if name in graph.tensors),
        outputs=tuple(graph.tensors[name].facts() for name in graph.outputs if name in graph.tensors),
        ops=dict(ops.most_common()),
        custom_ops=graph.custom_ops,
        further_graphs=graph.further_graphs,
        weights_bytes=sum(weight_types.values()),
        biggest=tuple(tensor.facts() for tensor in stored[:BIGGEST]),
        weight_types=dict(weight_types.most_common()),
        activation_types=dict(computed.most_common()),
        scheme=scheme(graph, weight_types, computed),
        metadata=graph.metadata | ({"note": "; ".join(graph.notes)} if graph.notes else {}),
        findings=tuple(find(graph)),
        rules=tuple(judge(graph, target)),
    )


def _computed(graph: Graph) -> list[Tensor]:
    """Values that are computed at run time."""
    named = {name for node in graph.nodes for name in (*node.outputs, *graph.live(node))}
    inside = [tensor for name, tensor in graph.tensors.items() if name.startswith("partition ") and not tensor.constant]
    return [graph.tensors[name] for name in named if name in graph.tensors] + inside


def scheme(graph: Graph, weights: Counter[str], computed: Counter[str]) -> str:
    """Quantization of a file in words.

    Args:
        graph: its main graph.
        weights: type → bytes of stored tensors.
        computed: type → number of computed tensors.
    """
    total = sum(weights.values()) or 1
    small = {name: size for name, size in weights.items() if name in SMALL}
    decoded = graph.delegated.keys() & {"constexpr_lut_to_dense", "constexpr_affine_dequantize"}
    if decoded:
        how = "palettes" if "constexpr_lut_to_dense" in decoded else "scales"
        return f"weights compressed with {how}, computed in {_most(computed)}"
    if sum(small.values()) < 0.25 * total:
        half = weights["float16"] / total > 0.5
        if half and computed["float16"] <= computed["float32"]:
            return "half-precision weights, computed in float32"
        return "none: half precision" if half else f"none: {_most(weights) or 'no weights'}"
    kinds = " and ".join(sorted(small))
    several = any(t.scales > 1 for t in graph.tensors.values() if t.constant and t.dtype in SMALL)
    per = "per channel" if several else "per tensor"
    quantizers = [node for node in graph.nodes if node.kind == "quantize"]
    integers = {name: n for name, n in computed.items() if name in ("int8", "uint8", "int16", "uint16")}
    floats = sum(computed[name] for name in FLOATS)
    if not integers or (sum(integers.values()) * 4 < floats and not quantizers):
        return f"{kinds} weights {per}, activations in {_most(computed)} (weights only, or dynamic range)"
    widest = max(integers, key=lambda name: integers[name])
    return f"{kinds} weights {per}, {widest} activations (static)"


def _most(types: Counter[str]) -> str:
    floats = [(name, n) for name, n in types.most_common() if name in FLOATS]
    return floats[0][0] if floats else next(iter(types), "")
