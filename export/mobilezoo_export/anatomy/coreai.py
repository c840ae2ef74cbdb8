"""Read the program of a Core AI model into the form that the findings need."""

from pathlib import Path

import numpy as np

from mobilezoo_export.aimodel.reading import Graph as Program
from mobilezoo_export.aimodel.reading import Operation, Value, main_graph, read_graphs
from mobilezoo_export.anatomy.graph import Graph, Node, Tensor
from mobilezoo_export.quiet import quiet

ORDER = "transpose"
SMALL = 16
"""Elements up to which a constant may be axes or sizes: zeros and ones of those mean nothing."""


def read_graph(path: Path) -> Graph:
    """Read a model's main function. Raises ExportError for one that is damaged, or has none.

    Args:
        path: the `.aimodel` folder.
    """
    with quiet():
        graphs = read_graphs(path)
    program = main_graph(graphs, path)
    tensors = {str(one.number): _tensor(one) for one in program.inputs}
    for item in program.operations:
        tensors |= {str(one.number): _tensor(one) for one in item.results}
    tensors |= {str(number): _stored(number, values) for number, values in program.constants.items()}
    nodes = tuple(_node(index, item, program, graphs) for index, item in enumerate(program.operations))
    called = {item.callee for item in program.operations if item.callee in graphs}
    return Graph(
        inputs=tuple(str(one.number) for one in program.inputs),
        outputs=tuple(str(one.number) for one in program.outputs),
        tensors=tensors,
        nodes=nodes,
        producer="Core AI program",
        further_graphs=len(graphs) - 1 - len(called),
        metadata={},
    )


def _tensor(value: Value) -> Tensor:
    return Tensor(name=value.name or f"#{value.number}", dtype=value.dtype, shape=value.shape)


def _stored(number: int, values: np.ndarray) -> Tensor:
    zero = values.size > SMALL and not values.any()
    return Tensor(
        name=f"constant #{number}", dtype=str(values.dtype), shape=values.shape, stored_bytes=values.nbytes, zero=zero
    )


def _node(index: int, item: Operation, program: Program, graphs: dict[str, Program]) -> Node:
    called = graphs.get(item.callee)
    name = (called.composite or called.name) if called else item.name
    order = program.constants.get(item.operands[1]) if name == ORDER and len(item.operands) > 1 else None
    return Node(
        name=f"{name} #{index}",
        op=name,
        inputs=tuple(map(str, item.operands)),
        outputs=tuple(str(one.number) for one in item.results),
        permutation=None if order is None else tuple(int(axis) for axis in order.reshape(-1)),
    )
