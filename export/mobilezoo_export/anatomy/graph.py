"""A file's main graph in one form for all formats, as far as the findings need it."""

from collections import Counter
from dataclasses import dataclass, field

from mobilezoo.doctor_report import TensorFacts

Shape = tuple[int | None, ...]
FLOATS = ("float32", "float16", "bfloat16", "float64")
KINDS = {
    "conv2d": "conv",
    "conv": "conv",
    "depthwiseconv2d": "conv",
    "convtranspose": "conv",
    "transposeconv": "conv",
    "fullyconnected": "matmul",
    "gemm": "matmul",
    "matmul": "matmul",
    "linear": "matmul",
    "batchmatmul": "matmul",
    "transpose": "transpose",
    "permutecopy": "transpose",
    "reshape": "reshape",
    "flatten": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "expanddims": "reshape",
    "viewcopy": "reshape",
    "identity": "identity",
    "dropout": "identity",
    "cast": "cast",
    "add": "add",
    "sub": "add",
    "mul": "mul",
    "batchnormalization": "batchnorm",
    "batchnorm": "batchnorm",
    "quantizelinear": "quantize",
    "quantize": "quantize",
    "quantizepertensor": "quantize",
    "dequantizelinear": "dequantize",
    "dequantize": "dequantize",
    "dequantizepertensor": "dequantize",
    "relu": "relu",
    "relu6": "relu",
    "relun1to1": "relu",
    "clip": "relu",
    "clamp": "relu",
}
"""Operator, lower case and without underscores → what it is in every format."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value of the graph."""

    name: str
    dtype: str
    shape: Shape | None = None
    scales: int = 0
    """Number of quantization scales: 0 none, 1 per tensor, more per channel or block."""
    quantization: str = ""
    """Scale and zero point in words, where there is one of each."""
    stored_bytes: int | None = None
    """None for a computed value."""
    zero: bool = False
    """Stored, with more than one element, and all of them zero."""
    digest: str = ""
    """Of stored bytes; empty where they were not compared."""
    variable: bool = False
    """Whether it keeps a value from one run to the next."""

    @property
    def constant(self) -> bool:
        """Whether the file stores its value."""
        return self.stored_bytes is not None

    def facts(self) -> TensorFacts:
        """The tensor for a report."""
        how = self.quantization or (f"{self.scales} scales" if self.scales > 1 else "")
        return TensorFacts(
            name=self.name, dtype=self.dtype, shape=self.shape, quantization=how, size_bytes=self.stored_bytes
        )


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator. Inputs and outputs are keys of `Graph.tensors`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    permutation: tuple[int, ...] | None = None
    """Of a transpose whose order the file states."""
    activation: str = ""
    """Fused into the operator."""
    effects: bool = False
    """Whether it does something besides its outputs: writes a variable, calls a graph."""
    version: int = 1
    """Of the operator, where its format counts them."""
    options: dict[str, float] = field(default_factory=dict)
    """Numbers that a LiteRT operator is set to: axis, mode, ..."""

    @property
    def kind(self) -> str:
        """conv, matmul, transpose, ...: the same in all formats; the operator's own name for all others."""
        plain = self.op.rpartition(":")[2].lower().replace("_", "").partition(".")[0]
        return KINDS.get(plain, plain)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The main graph of a file, its nodes in an order in which they can run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    producer: str = ""
    custom_ops: tuple[str, ...] = ()
    further: Counter[str] = field(default_factory=Counter)
    """Operators of graphs beside the main one."""
    further_graphs: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    delegated: Counter[str] = field(default_factory=Counter)
    """Operators inside of delegates, where they can be read."""
    delegates: tuple[str, ...] = ()
    """Names of the delegates that the file is compiled for, one per call."""
    notes: tuple[str, ...] = ()
    """What the reader did not see."""

    def givers(self) -> dict[str, Node]:
        """Tensor → the node that computes it."""
        return {out: node for node in self.nodes for out in node.outputs}

    def readers(self) -> dict[str, list[Node]]:
        """Tensor → the nodes that read it; a node that reads it twice is listed twice."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def is_constant(self, name: str) -> bool:
        """Whether a tensor's value is stored in the file."""
        return name in self.tensors and self.tensors[name].constant

    def live(self, node: Node) -> list[str]:
        """Inputs of a node that are computed at run time."""
        return [name for name in node.inputs if name and not self.is_constant(name)]

    def dtype(self, name: str) -> str:
        """Type of a tensor; empty where the file does not state it."""
        return self.tensors[name].dtype if name in self.tensors else ""

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor; None where the file does not state it, or leaves a size open."""
        shape = self.tensors[name].shape if name in self.tensors else None
        return None if shape is None or None in shape else shape
