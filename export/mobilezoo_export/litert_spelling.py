"""Operators of converted LiteRT files, spelled so that every unit of a phone takes and computes them rightly."""

from pathlib import Path
from typing import Any

import numpy as np

ADDED = "respelled"
"""How the names of the tensors that are added begin."""


def respell(path: Path, half: bool = False) -> int:
    """Rewrite operators that a unit of phones refuses or computes wrongly (LiteRT 2.3).

    * A matrix product with a constant on the left: XNNPACK then refuses the whole file in half precision, and the GPU
      leaves that operator and all behind it to the CPU. Zeros that are computed from the input are added to it.
    * One with a constant on the right, for half precision: XNNPACK takes the file and fails when it runs. The same.
    * A matrix product of one matrix with many: the GPU computes something else. Rows of the left side become one matrix
      where the right side is one; else the shared matrices are repeated.
    * The mean of a square, for half precision: XNNPACK makes one operator of both, has none in half precision, and
      computes the whole file in float32. The square becomes the squared difference from zero.

    Args:
        path: a float32 file, rewritten if anything changes.
        half: the file will compute in half precision.

    Returns:
        How many operators were changed.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    edit = _Edit(model, schema)
    changed = edit.free_constants(half) + edit.unshare() + (edit.part_squares_from_means() if half else 0)
    if changed:
        builder = flatbuffers.Builder(path.stat().st_size)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
    return changed


class _Edit:
    """Changes the main graph of a file."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._graph, self._schema = model, model.subgraphs[0], schema
        self._products = self._all("BATCH_MATMUL")

    def free_constants(self, half: bool) -> int:
        """Add computed zeros to each constant that is a left side, in half precision also a right one.

        Returns how many sides of products were constant.
        """
        sides = (0, 1) if half else (0,)
        places = [(one, side) for one in self._products for side in sides if self._is_constant(one.inputs[side])]
        if not places:
            return 0
        source, after = self._first_float()
        new, positive = self._positive(source)
        zeros: dict[tuple[int, ...], int] = {}
        freed: dict[tuple[int, tuple[int, ...]], int] = {}
        for product, side in places:
            tensors = [int(tensor) for tensor in product.inputs]
            constant, other = tensors[side], tensors[1 - side]
            batch = tuple(self._shape(constant)[:-2])
            if not self._is_open(other):
                batch = np.broadcast_shapes(batch, self._shape(other)[:-2])
            if batch not in zeros:
                new.append(self._zero(positive, batch))
                zeros[batch] = new[-1].outputs[0]
            if (constant, batch) not in freed:
                new.append(self._sum(constant, zeros[batch], batch))
                freed[constant, batch] = new[-1].outputs[0]
            tensors[side] = freed[constant, batch]
            product.inputs = tensors
        self._graph.operators[after:after] = new
        return len(places)

    def unshare(self) -> int:
        """Give each matrix of a product a partner of its own; returns how many products needed it."""
        changed = 0
        for product in self._products:
            sides = [int(tensor) for tensor in product.inputs]
            if any(self._is_open(tensor) for tensor in (*sides, product.outputs[0])):
                continue
            counts = [int(np.prod(self._shape(side)[:-2])) for side in sides]
            if counts[0] == counts[1]:
                continue
            at = self._graph.operators.index(product)
            if counts[1] == 1 and not product.builtinOptions.adjX:
                self._graph.operators[at : at + 1] = self._as_rows(product)
            else:
                self._graph.operators[at:at] = self._repeated(product)
            changed += 1
        return changed

    def part_squares_from_means(self) -> int:
        """Write the squares whose mean is taken as squared differences from zero; returns how many."""
        averaged = {int(mean.inputs[0]) for mean in self._all("MEAN")}
        squares = [
            one
            for one in self._all("MUL")
            if one.inputs[0] == one.inputs[1] and int(one.outputs[0]) in averaged and self._is_plain(one)
        ]
        options = self._schema.BuiltinOptions.SquaredDifferenceOptions, self._schema.SquaredDifferenceOptionsT()
        for square in squares:
            inputs = [int(square.inputs[0]), self._constant(np.zeros(1, np.float32))]
            new = self._operator("SQUARED_DIFFERENCE", inputs, int(square.outputs[0]), *options)
            self._graph.operators[self._graph.operators.index(square)] = new
        return len(squares)

    def _is_plain(self, operator: Any) -> bool:
        """Whether no activation is part of it."""
        none = self._schema.ActivationFunctionType.NONE
        return operator.builtinOptions is None or operator.builtinOptions.fusedActivationFunction == none

    def _all(self, name: str) -> list[Any]:
        code = getattr(self._schema.BuiltinOperator, name)
        codes = [entry.builtinCode for entry in self._model.operatorCodes]
        return [one for one in self._graph.operators if codes[one.opcodeIndex] == code]

    def _as_rows(self, product: Any) -> list[Any]:
        """The product with all matrices of its left side as one, between two reshapes."""
        left, right, output = *map(int, product.inputs), int(product.outputs[0])
        *_, columns = self._shape(left)
        ones, rows = [1] * (len(self._shape(right)) - 2), int(np.prod(self._shape(left)[:-1]))
        flat = self._tensor([*ones, rows, columns])
        result = self._tensor([*ones, rows, self._shape(output)[-1]])
        before, behind = self._reshape(left, flat), self._reshape(result, output)
        product.inputs, product.outputs = [flat, right], [result]
        return [before, product, behind]

    def _repeated(self, product: Any) -> list[Any]:
        """Operators that repeat the shared matrices of a product, which then reads them."""
        sides = [int(tensor) for tensor in product.inputs]
        batch = np.broadcast_shapes(*(self._shape(side)[:-2] for side in sides))
        operators = []
        for index, side in enumerate(sides):
            shape = self._shape(side)
            if int(np.prod(shape[:-2])) != int(np.prod(batch)):
                ones = self._constant(np.ones((*batch, 1, 1), np.float32))
                sides[index] = self._tensor([*batch, *shape[-2:]])
                options = self._schema.BuiltinOptions.MulOptions, self._schema.MulOptionsT()
                operators.append(self._operator("MUL", [side, ones], sides[index], *options))
        product.inputs = sides
        return operators

    def _first_float(self) -> tuple[int, int]:
        """A float32 tensor that is known early, and the position of the first operator behind it."""
        float32 = self._schema.TensorType.FLOAT32
        for tensor in map(int, self._graph.inputs):
            if self._graph.tensors[tensor].type == float32:
                return tensor, 0
        return next(
            (int(operator.outputs[0]), position + 1)
            for position, operator in enumerate(self._graph.operators)
            if self._graph.tensors[operator.outputs[0]].type == float32
        )

    def _positive(self, source: int) -> tuple[list[Any], int]:
        """Operators that take what is above zero of a tensor's first element, and their result; of a NaN, NaN."""
        rank, slices = len(self._shape(source)), self._schema.BuiltinOptions.SliceOptions
        begin, size = self._constant(np.zeros(rank, np.int32)), self._constant(np.ones(rank, np.int32))
        first, flat, positive = self._tensor([1] * rank), self._tensor([1]), self._tensor([1])
        operators = [
            self._operator("SLICE", [source, begin, size], first, slices, self._schema.SliceOptionsT()),
            self._reshape(first, flat),
            self._operator("RELU", [flat], positive),
        ]
        return operators, positive

    def _zero(self, positive: int, batch: tuple[int, ...]) -> Any:
        """The least of something positive and zeros, one for each matrix of a batch."""
        zeros = self._constant(np.zeros((*batch, 1, 1), np.float32))
        options = self._schema.BuiltinOptions.MaximumMinimumOptions, self._schema.MaximumMinimumOptionsT()
        return self._operator("MINIMUM", [positive, zeros], self._tensor([*batch, 1, 1]), *options)

    def _sum(self, constant: int, zero: int, batch: tuple[int, ...]) -> Any:
        total = self._tensor([*batch, *self._shape(constant)[-2:]])
        options = self._schema.BuiltinOptions.AddOptions, self._schema.AddOptionsT()
        return self._operator("ADD", [constant, zero], total, *options)

    def _reshape(self, source: int, target: int) -> Any:
        options = self._schema.ReshapeOptionsT()
        options.newShape = self._shape(target)
        shape = self._constant(np.array(options.newShape, np.int32))
        kind = self._schema.BuiltinOptions.ReshapeOptions
        return self._operator("RESHAPE", [source, shape], target, kind, options)

    def _operator(self, name: str, inputs: list[int], output: int, kind: int = 0, options: Any = None) -> Any:
        code = getattr(self._schema.BuiltinOperator, name)
        known = [entry.builtinCode for entry in self._model.operatorCodes]
        if code not in known:
            entry = self._schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 1
            self._model.operatorCodes.append(entry)
            known.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        return operator

    def _constant(self, values: np.ndarray) -> int:
        buffer = self._schema.BufferT()
        buffer.data = list(values.tobytes())
        self._model.buffers.append(buffer)
        return self._tensor(list(values.shape), len(self._model.buffers) - 1, values.dtype.name.upper())

    def _tensor(self, shape: list[int], buffer: int = 0, of: str = "FLOAT32") -> int:
        tensor = self._schema.TensorT()
        tensor.name = f"{ADDED}/{len(self._graph.tensors)}"
        tensor.shape, tensor.buffer, tensor.type = shape, buffer, getattr(self._schema.TensorType, of)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _shape(self, tensor: int) -> list[int]:
        return [int(size) for size in self._graph.tensors[tensor].shape]

    def _is_constant(self, tensor: int) -> bool:
        return self._model.buffers[self._graph.tensors[tensor].buffer].data is not None

    def _is_open(self, tensor: int) -> bool:
        """Whether the tensor leaves a size open."""
        signature = self._graph.tensors[tensor].shapeSignature
        return signature is not None and any(size < 0 for size in signature)
