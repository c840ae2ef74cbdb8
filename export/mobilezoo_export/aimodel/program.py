"""Compute a saved `.aimodel`."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.aimodel.arguments import OPERATIONS, Arguments, stored
from mobilezoo_export.aimodel.reading import Graph, Operation, Value, main_graph, read_graphs

INVOKE = "invoke"
DEEPEST = 8
"""Graphs that call each other."""
FAILURES = (ArithmeticError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What operands that do not fit lead to."""

for _module in ("elementwise", "layers", "shapes"):
    importlib.import_module(f"mobilezoo_export.aimodel.{_module}")


class SavedProgram:
    """The main function of a Core AI model.

    Values declared float16 are rounded to half after each operation, as a device stores them; arithmetic itself is
    float32, as accelerators accumulate wider than they store.
    """

    def __init__(self, path: Path) -> None:
        """Read a model.

        Args:
            path: the `.aimodel` folder.

        Raises:
            ExportError: the model is damaged, or has operations that are not implemented here.
        """
        self._path = path
        self._graphs = read_graphs(path)
        self._main = main_graph(self._graphs, path)
        used = (item for graph in self._graphs.values() for item in graph.operations if item.name != INVOKE)
        if unknown := sorted({item.name for item in used if item.name not in OPERATIONS}):
            raise ExportError(f"{path.name!r}: program check does not know the operation {', '.join(unknown)}")
        self._fixed = {name: _constants(graph) for name, graph in self._graphs.items()}

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Inputs of the main function."""
        return self._main.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """Outputs of the main function."""
        return self._main.outputs

    def operators(self) -> Iterator[str]:
        """Names of the main function's operations; of a call, what the called graph spells out."""
        return operators(self._graphs, self._path)

    def run(self, *values: np.ndarray) -> list[np.ndarray]:
        """Compute all outputs.

        Args:
            values: one for each input, in its shape.

        Raises:
            ExportError: a value has another shape than declared.
        """
        with torch.no_grad():
            given = [torch.from_numpy(np.ascontiguousarray(value)) for value in values]
            return [value.numpy() for value in self._compute(self._main, given, 0)]

    def _compute(self, graph: Graph, given: list[torch.Tensor], depth: int) -> list[torch.Tensor]:
        if depth > DEEPEST or len(given) != len(graph.inputs):
            raise ExportError(f"{self._path.name!r}: {graph.name} is called with {len(given)} values, or by itself")
        fixed = self._fixed[graph.name]
        values: dict[int, torch.Tensor] = {}
        for declared, value in zip(graph.inputs, given, strict=True):
            values[declared.number] = self._checked(declared, value, graph.name)
        for item in graph.operations:
            operands = [fixed[number] if number in fixed else values[number] for number in item.operands]
            # What depends on constants alone is computed once: weights that are stored as integers.
            into = fixed if item.operands and all(number in fixed for number in item.operands) else values
            for declared, value in zip(item.results, self._results(item, operands, depth), strict=True):
                into[declared.number] = self._checked(declared, value, item.name)
        return [fixed[one.number] if one.number in fixed else values[one.number] for one in graph.outputs]

    def _results(self, item: Operation, operands: list[torch.Tensor], depth: int) -> list[torch.Tensor]:
        if item.name == INVOKE:
            if item.callee not in self._graphs:
                raise ExportError(f"{self._path.name!r} calls {item.callee!r}, which it does not hold")
            return self._compute(self._graphs[item.callee], operands, depth + 1)
        try:
            computed = OPERATIONS[item.name](Arguments(item, operands))
        except FAILURES as error:
            reason = f"{type(error).__name__}: {first_line(error, 160)}"
            raise ExportError(f"{self._path.name!r}: {item.name} cannot be computed: {reason}") from error
        return [computed] if isinstance(computed, torch.Tensor) else list(computed)

    def _checked(self, declared: Value, value: torch.Tensor, what: str) -> torch.Tensor:
        """The value as it is stored. Raises ExportError for another shape than declared."""
        shape = tuple(value.shape)
        fits = len(shape) == len(declared.shape)
        if not fits or any(size not in (None, actual) for size, actual in zip(declared.shape, shape, strict=True)):
            raise ExportError(f"{self._path.name!r}: {what} is declared as {declared.shape} but computes {shape}")
        return stored(value, declared.dtype)


def operators(graphs: dict[str, Graph], path: Path) -> Iterator[str]:
    """Yield the names of the main function's operations; of a call, what the called graph spells out.

    Args:
        graphs: those of the file.
        path: the file, for messages.
    """
    for item in main_graph(graphs, path).operations:
        called = graphs.get(item.callee)
        yield (called.composite or called.name) if called else item.name


def _constants(graph: Graph) -> dict[int, torch.Tensor]:
    wide = {np.dtype(np.uint32): np.int64, np.dtype(np.uint16): np.int32}
    found = {}
    for number, value in graph.constants.items():
        held = value.astype(wide.get(value.dtype, value.dtype))
        found[number] = torch.from_numpy(held.astype(np.float32) if held.dtype == np.float16 else held)
    return found
