"""Channels-last throughout: permutations are tracked as axis orders instead of being executed.

LiteRT computes images as NHWC. Its converter puts a TRANSPOSE wherever an operator that it does not support in that
layout (a reshape to tokens, a reduction, a split, a matrix product) meets a convolution. Here every value is a stored
tensor plus the order of its axes; `permute` changes that order only, most operators map their axes through it, reshapes
keep it where the merged or split axes lie together, and matrix products choose between X·Y and (Yᵀ·Xᵀ)ᵀ. A real
permute is left only where none of this works, and at each convolution, where it cancels against the converter's own.
"""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from mobilezoo_export.passes.graph import add_constant, argument, aten, constant, shape_of
from mobilezoo_export.passes.layout_rules import (
    BINARY,
    IMAGE,
    NHWC,
    REDUCTIONS,
    UNARY,
    Order,
    is_free,
    padding_in_order,
    reduced_order,
    reshaped_order,
)


class Value(NamedTuple):
    """A logical tensor stored with its axes in another order: stored axis i holds logical axis `order[i]`."""

    node: Node
    order: Order


def run(model: GraphModule) -> int:
    """Rewrite the whole graph, in place; returns the number of permutes removed (negative if it had to add some)."""
    before = _permutes(model.graph)
    _Rewriter(model).rewrite()
    return before - _permutes(model.graph)


def _permutes(graph: Graph) -> int:
    return sum(node.target is aten.permute.default for node in graph.nodes)


class _Rewriter:
    def __init__(self, model: GraphModule) -> None:
        self.model, self.graph = model, Graph()
        self.values: dict[Node, Value] = {}
        self._stored: dict[tuple[Node, Order], Node] = {}
        self._rules: dict[Any, Callable[[Node], Value]] = {
            **dict.fromkeys(UNARY, self._unary),
            **dict.fromkeys(BINARY, self._binary),
            **dict.fromkeys(IMAGE, self._image),
            **dict.fromkeys(REDUCTIONS, self._reduction),
            operator.getitem: self._unary,
            aten.permute.default: self._permute,
            aten.reshape.default: self._reshape,
            aten.unsqueeze.default: self._reshape,
            aten.squeeze.dim: self._reshape,
            aten.squeeze.dims: self._reshape,
            aten.cat.default: self._cat,
            aten.slice.Tensor: self._along_axis,
            aten.split_with_sizes.default: self._along_last_axis,
            aten.split.Tensor: self._along_last_axis,
            aten.chunk.default: self._along_last_axis,
            aten.index_select.default: self._along_axis,
            aten.select.int: self._select,
            aten.softmax.int: self._softmax,
            aten._softmax.default: self._softmax,
            aten.linear.default: self._features_last,
            aten.layer_norm.default: self._features_last,
            aten.matmul.default: self._matmul,
            aten.bmm.default: self._matmul,
            aten.adaptive_avg_pool2d.default: self._adaptive_pool,
            aten.constant_pad_nd.default: self._pad,
            aten.pad.default: self._pad,
        }

    def rewrite(self) -> None:
        for node in self.model.graph.nodes:
            if node.op == "output":
                outputs = map_arg(node.args[0], lambda n: self.stored(n, _plain(n)))
                self.graph.output(outputs)
            elif node.op in ("placeholder", "get_attr"):
                self.values[node] = Value(self.graph.node_copy(node), _plain(node))
            else:
                self.values[node] = self._rules.get(node.target, self._as_is)(node)
        self.graph._codegen = self.model.graph._codegen
        self.model.graph = self.graph

    # --- tools -------------------------------------------------------------------------------------------------------

    def stored(self, node: Node, order: Order) -> Node:
        """The tensor of an old node with its axes in `order`; permuted once, and only if it is not so already."""
        value = self.values[node]
        if value.order == order:
            return value.node
        key = (node, order)
        if key not in self._stored:
            moves = [value.order.index(axis) for axis in order]
            shape = shape_of(node)
            if is_free(shape, value.order, order):
                new = self.emit(aten.reshape.default, value.node, [shape[axis] for axis in order])
            else:
                new = self.emit(aten.permute.default, value.node, moves)
            self._stored[key] = new
        return self._stored[key]

    def emit(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return self.graph.call_function(target, args, kwargs)

    def _copy(self, node: Node, first: Node, *rest: Any) -> Node:
        return self.graph.call_function(node.target, (first, *rest), dict(node.kwargs))  # type: ignore[arg-type]

    def _source(self, node: Node) -> Node:
        source = node.args[0]
        assert isinstance(source, Node)
        return source

    def _new(self, arg: Any) -> Any:
        """An argument in the new graph, axes in their logical order."""
        return map_arg(arg, lambda n: self.stored(n, _plain(n)))

    # --- rules -------------------------------------------------------------------------------------------------------

    def _as_is(self, node: Node) -> Value:
        kwargs = {key: self._new(value) for key, value in node.kwargs.items()}
        new = self.graph.call_function(node.target, tuple(self._new(arg) for arg in node.args), kwargs)  # type: ignore[arg-type]
        return Value(new, _plain(node))

    def _unary(self, node: Node) -> Value:
        value = self.values[self._source(node)]
        # A list that came out of an unknown operator has logical order.
        return Value(self._copy(node, value.node, *node.args[1:]), value.order or _plain(node))

    def _image(self, node: Node) -> Value:
        source = self._source(node)
        if len(shape_of(source)) != 4:
            return self._as_is(node)
        new = self._copy(node, self.stored(source, _plain(source)), *(self._new(arg) for arg in node.args[1:]))
        return Value(self.emit(aten.permute.default, new, list(NHWC)), NHWC)

    def _binary(self, node: Node) -> Value:
        operands = [arg for arg in node.args[:2] if isinstance(arg, Node)]
        rank = len(shape_of(node))
        full = [arg for arg in operands if len(shape_of(arg)) == rank]
        if not full:
            return self._as_is(node)

        def weight(operand: Node) -> tuple[bool, int, bool]:
            """The largest computed operand keeps its order, of equal ones one whose features are not outermost (where
            no norm or linear layer takes them), else the first; constants and small ones follow."""
            computed = constant(self.model, operand) is None
            return computed, torch.Size(shape_of(operand)).numel(), self.values[operand].order[0] != rank - 1

        order = self.values[max(full, key=weight)].order
        args = [self._aligned(arg, order) if isinstance(arg, Node) else arg for arg in node.args]
        return Value(self.graph.call_function(node.target, tuple(args), dict(node.kwargs)), order)  # type: ignore[arg-type]

    def _aligned(self, node: Node, order: Order) -> Node:
        """An operand of a broadcasting operator, axes in `order`; missing leading axes are ones."""
        shape = shape_of(node)
        if len(shape) == len(order):
            return self.stored(node, order)
        if not shape:
            return self.values[node].node
        padded = (*[1] * (len(order) - len(shape)), *shape)
        plain = self.stored(node, _plain(node))
        if is_free(padded, tuple(range(len(order))), order):
            return self.emit(aten.reshape.default, plain, [padded[axis] for axis in order])
        return self.emit(aten.permute.default, self.emit(aten.reshape.default, plain, list(padded)), list(order))

    def _reduction(self, node: Node) -> Value:
        source = self._source(node)
        value, rank = self.values[source], len(shape_of(source))
        axes = argument(node, 1, "dim")
        axes = list(range(rank)) if axes is None else [axes] if isinstance(axes, int) else list(axes)
        axes = [axis % rank for axis in axes]
        keep = bool(argument(node, 3 if node.target is aten.var.correction else 2, "keepdim", False))
        stored_axes = [value.order.index(axis) for axis in axes]
        new = self._copy(node, value.node, stored_axes, *node.args[2:])
        return Value(new, value.order if keep else reduced_order(value.order, axes))

    def _adaptive_pool(self, node: Node) -> Value:
        if tuple(node.args[1]) not in ((1, 1), (1,)):  # type: ignore[arg-type]
            return self._image(node)
        value = self.values[self._source(node)]
        axes = [value.order.index(axis) for axis in (2, 3)]
        return Value(self.emit(aten.mean.dim, value.node, axes, True), value.order)

    def _permute(self, node: Node) -> Value:
        value, moves = self.values[self._source(node)], [int(axis) for axis in node.args[1]]  # type: ignore[union-attr,arg-type]
        moves = [axis % len(moves) for axis in moves]
        return Value(value.node, tuple(moves.index(axis) for axis in value.order))

    def _reshape(self, node: Node) -> Value:
        source, shape = self._source(node), shape_of(node)
        value = self.values[source]
        order = reshaped_order(shape_of(source), shape, value.order)
        if order is None:
            plain = self.stored(source, _plain(source))
            return Value(self.emit(aten.reshape.default, plain, list(shape)), _plain(node))
        return Value(self.emit(aten.reshape.default, value.node, [shape[axis] for axis in order]), order)

    def _cat(self, node: Node) -> Value:
        parts: Sequence[Node] = node.args[0]  # type: ignore[assignment]
        rank = len(shape_of(node))
        votes: Counter[Order] = Counter()
        for part in parts:
            if len(shape_of(part)) == rank:  # constants are laid out for nothing
                computed = constant(self.model, part) is None
                votes[self.values[part].order] += torch.Size(shape_of(part)).numel() if computed else 0
        order = max(votes, key=votes.__getitem__)
        axis = order.index(int(argument(node, 1, "dim", 0)) % rank)
        return Value(self.emit(aten.cat.default, [self.stored(part, order) for part in parts], axis), order)

    def _along_axis(self, node: Node) -> Value:
        """Operators with the axis as second argument."""
        value = self.values[self._source(node)]
        axis = value.order.index(int(argument(node, 1, "dim", 0)) % len(value.order))
        rest = [self._new(arg) for arg in node.args[2:]]
        return Value(self.emit(node.target, value.node, axis, *rest, **_without_dim(node)), value.order)

    def _along_last_axis(self, node: Node) -> Value:
        """Operators with sizes second and the axis third."""
        value = self.values[self._source(node)]
        axis = value.order.index(int(argument(node, 2, "dim", 0)) % len(value.order))
        return Value(self.emit(node.target, value.node, node.args[1], axis), value.order)

    def _select(self, node: Node) -> Value:
        value = self.values[self._source(node)]
        axis = int(node.args[1]) % len(value.order)  # type: ignore[arg-type]
        new = self.emit(aten.select.int, value.node, value.order.index(axis), node.args[2])
        return Value(new, reduced_order(value.order, [axis]))

    def _softmax(self, node: Node) -> Value:
        source, rank = self._source(node), len(shape_of(node))
        axis = int(node.args[1]) % rank  # type: ignore[arg-type]
        order = _last(self.values[source].order, axis)
        return Value(self._copy(node, self.stored(source, order), rank - 1, *node.args[2:]), order)

    def _features_last(self, node: Node) -> Value:
        """Linear layers and LayerNorm over one axis: the other axes may lie in any order."""
        source = self._source(node)
        if node.target is aten.layer_norm.default and len(node.args[1]) != 1:  # type: ignore[arg-type]
            return self._as_is(node)
        order = _last(self.values[source].order, len(shape_of(source)) - 1)
        rest = [self._new(arg) for arg in node.args[1:]]
        return Value(self._copy(node, self.stored(source, order), *rest), order)

    def _matmul(self, node: Node) -> Value:
        x, y = node.args[:2]
        assert isinstance(x, Node)
        assert isinstance(y, Node)
        rank = len(shape_of(node))
        for matrix, other, axis in ((x, y, rank - 2), (y, x, rank - 1)):
            if rank >= 3 and len(shape_of(matrix)) == 2 and constant(self.model, matrix) is not None:
                return self._along(self.values[other], shape_of(other), axis, matrix)
        if rank < 3 or len(shape_of(x)) != rank or len(shape_of(y)) != rank:
            return self._as_is(node)
        plain, swapped = _matrix_orders(rank)
        x_order, y_order = (_batch_first(self.values[n].order, rank) for n in (x, y))
        if x_order == swapped and y_order == swapped:
            left, right = self.stored(y, swapped), self.stored(x, swapped)
            return Value(self._product(left, right, rank), swapped)
        left, right = self.stored(x, plain), self.stored(y, y_order)
        if y_order == swapped:
            # The converter reads this as a product with a transposed right side; nothing is moved.
            right = self.emit(aten.permute.default, right, list(swapped))
        return Value(self._product(left, right, rank), plain)

    def _along(self, value: Value, shape: tuple[int, ...], axis: int, matrix: Node) -> Value:
        """A constant matrix times a map along one of its axes, wherever that axis is stored.

        `matrix` is the left side for the axis before the last, the right side for the last.
        """
        table = constant(self.model, matrix)
        assert table is not None
        table = table if axis == len(shape) - 2 else table.t()  # [new, old]
        stored, place = [shape[i] for i in value.order], value.order.index(axis)
        if place == len(shape) - 1:
            return Value(self.emit(aten.linear.default, value.node, self._constant(table)), value.order)
        before, after = prod(stored[:place]), prod(stored[place + 1 :])
        rows = self.emit(aten.reshape.default, value.node, [before, stored[place], after])
        # Not broadcast by the product itself: the converter would turn the map for a plain matrix.
        left = self.emit(aten.expand.default, self._constant(table[None]), [before, -1, -1])
        mixed = self._product(left, rows, 3)
        stored[place] = table.shape[0]
        return Value(self.emit(aten.reshape.default, mixed, stored), value.order)

    def _constant(self, value: torch.Tensor) -> Node:
        return add_constant(self.model, value, "matrix", self.graph)

    def _product(self, left: Node, right: Node, rank: int) -> Node:
        """An einsum keeps a batch axis of one, which `matmul` strips: XNNPACK takes no product of plain matrices."""
        batch = "abcd"[: rank - 2]
        return self.emit(aten.einsum.default, f"{batch}ij,{batch}jk->{batch}ik", [left, right])

    def _pad(self, node: Node) -> Value:
        value = self.values[self._source(node)]
        mode = argument(node, 2, "mode", "constant") if node.target is aten.pad.default else "constant"
        if mode != "constant":
            return self._image(node) if len(value.order) == 4 else self._as_is(node)
        fill = argument(node, 3 if node.target is aten.pad.default else 2, "value", 0.0) or 0.0
        pads = padding_in_order([int(amount) for amount in node.args[1]], value.order)  # type: ignore[union-attr,arg-type]
        return Value(self.emit(aten.constant_pad_nd.default, value.node, pads, fill), value.order)


def _plain(node: Node) -> Order:
    """Logical order; lists of tensors have none of their own."""
    value = node.meta.get("val")
    return tuple(range(value.dim())) if isinstance(value, torch.Tensor) else ()


def _last(order: Order, axis: int) -> Order:
    return order if order[-1] == axis else (*(other for other in order if other != axis), axis)


def _matrix_orders(rank: int) -> tuple[Order, Order]:
    batch = tuple(range(rank - 2))
    return (*batch, rank - 2, rank - 1), (*batch, rank - 1, rank - 2)


def _batch_first(order: Order, rank: int) -> Order:
    """The order nearest to `order` that a matrix product takes: batch axes leading, the matrix either way round."""
    plain, swapped = _matrix_orders(rank)
    return swapped if order.index(rank - 1) < order.index(rank - 2) else plain


def _without_dim(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.kwargs.items() if key != "dim"}
