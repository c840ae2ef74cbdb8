"""Which output of a file holds the scores, and of which kind they are: a final softmax gives probabilities, a final
convolution or linear layer logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobilezoo.artifacts import Output
from mobilezoo.errors import ExportError
from mobilezoo_export.feeding import described
from mobilezoo_export.records import TensorSpec

PASSED_BY = frozenset({"reshape", "squeeze", "flatten", "cast", "identity", "quantize", "dequantize", "expanddims"})
"""Operators, in the spelling of any format, that do not change the kind of a value."""
KINDS: dict[str, Output] = {
    "softmax": "probabilities",
    "sigmoid": "sigmoid",
    "logistic": "sigmoid",
    "logsoftmax": "logits",
    "gemm": "logits",
    "matmul": "logits",
    "linear": "logits",
    "conv": "logits",
    "conv2d": "logits",
    "fullyconnected": "logits",
}
LONGEST_WALK = 64


def scores_output(outputs: Sequence[TensorSpec], labels: int = 0) -> int:
    """Return the index of the output that holds one score per class.

    Args:
        outputs: the file's outputs.
        labels: number of known class names, which decides between several candidates; 0: unknown.

    Raises:
        ExportError: no output, or more than one, can hold the scores.
    """
    fitting = [index for index, tensor in enumerate(outputs) if _is_scores(tensor)]
    if len(fitting) > 1 and labels:
        fitting = [index for index in fitting if labels in outputs[index].shape] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ExportError(
            f"the file gives {described(outputs)}: that is no score per class; make one that gives the scores as floats"
        )
    raise ExportError(
        f"more than one output may hold the scores, {described([outputs[index] for index in fitting])}: pass --labels "
        "with one name per class of the one that is meant, or make a file with that output alone"
    )


def _is_scores(tensor: TensorSpec) -> bool:
    """Whether a tensor holds numbers along exactly one axis besides the batch and axes of size 1; sizes may be open."""
    inner = tensor.shape if len(tensor.shape) == 1 else tensor.shape[1:]
    shift = len(tensor.shape) - len(inner)
    known = [size for axis, size in enumerate(inner, shift) if axis not in tensor.open_axes]
    long, has_open = sum(size > 1 for size in known), len(known) < len(inner) or not inner
    numbers = tensor.dtype.startswith("float") or tensor.quantization is not None
    return numbers and (long == 1 or (long == 0 and has_open))


class Operator(NamedTuple):
    """An operator that computes a value, and its inputs."""

    name: str
    inputs: tuple[Any, ...]


def ending(path: Path, output: int = 0) -> Output | None:
    """Derive the kind of an output (logits, probabilities, sigmoid) from the operators that compute it.

    Args:
        path: an exported file.
        output: index of the output.

    Returns:
        The kind; None if the graph does not determine it, or if the format has no reader here.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        return None
    outputs, givers = reader(path)
    value = outputs[output] if output < len(outputs) else None
    for _ in range(LONGEST_WALK):
        giver = givers.get(value)
        if giver is None:
            return None
        name = giver.name.replace("_", "").lower().removesuffix("linear") or "linear"
        if name not in PASSED_BY or not giver.inputs:
            return KINDS.get(name)
        value = giver.inputs[0]
    return None


_Graph = tuple[list[Any], dict[Any, Operator]]
"""Names or indices of the outputs, and the operator that computes each value."""


def _onnx(path: Path) -> _Graph:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    givers = {out: Operator(node.op_type, tuple(node.input)) for node in graph.node for out in node.output}
    return [value.name for value in graph.output], givers


def _litert(path: Path) -> _Graph:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph, names = model.Subgraphs(0), {number: name for name, number in vars(schema.BuiltinOperator).items()}
    givers: dict[Any, Operator] = {}
    for index in range(graph.OperatorsLength()):
        op = graph.Operators(index)
        code = model.OperatorCodes(op.OpcodeIndex())
        name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
        inputs = tuple(int(op.Inputs(i)) for i in range(op.InputsLength()))
        givers |= {int(op.Outputs(i)): Operator(name, inputs) for i in range(op.OutputsLength())}
    return [int(graph.Outputs(i)) for i in range(graph.OutputsLength())], givers


def _coreml(path: Path) -> _Graph:
    import coremltools as ct

    for function in ct.utils.load_spec(str(path)).mlProgram.functions.values():
        block = function.block_specializations[function.opset]
        givers = {
            out.name: Operator(op.type, tuple(a.name for a in op.inputs["x"].arguments) if "x" in op.inputs else ())
            for op in block.operations
            for out in op.outputs
        }
        return list(block.outputs), givers
    return [], {}


_READERS: dict[str, Callable[[Path], _Graph]] = {".onnx": _onnx, ".tflite": _litert, ".mlpackage": _coreml}
