"""Helpers of the graph passes: tracing, shapes, constants."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from mobilezoo.errors import ExportError, first_line

aten = torch.ops.aten


def trace(model: nn.Module, example: torch.Tensor) -> GraphModule:
    """Trace a network to a flat functional ATen graph with high-level operators (conv2d, linear, group_norm, ...).

    Args:
        model: network in eval mode.
        example: (N, C, H, W) input; its sizes are constants of the graph.

    Raises:
        ExportError: the network cannot be traced (data-dependent control flow, unsupported Python).
    """
    try:
        with torch.no_grad():
            program = torch.export.export(model, (example,)).run_decompositions({})
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be traced: {first_line(error)}: "
            "remove control flow that depends on tensor values, or wrap it in torch.cond"
        ) from error
    traced = program.module(check_guards=False)
    assert isinstance(traced, GraphModule)
    refresh(traced, example)
    return traced


def refresh(model: GraphModule, example: torch.Tensor) -> None:
    """Recompute `node.meta["val"]` (fake tensors) of every node.

    Args:
        model: traced graph.
        example: (N, C, H, W) input that sets the shapes.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    with torch.no_grad():
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensorProp(model, mode).propagate(example.to("cpu"))


def calls(model: GraphModule, *targets: Any) -> Iterator[Node]:
    """Yield the nodes that call one of the operators, in graph order; the graph may be edited meanwhile.

    Args:
        model: traced graph.
        targets: ATen operators.
    """
    for node in list(model.graph.nodes):
        if node.op == "call_function" and node.target in targets:
            yield node


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor."""
    return tuple(int(size) for size in node.meta["val"].shape)


def constant(model: GraphModule, node: Any) -> torch.Tensor | None:
    """Return the tensor of a get_attr node, or None for any other value.

    Args:
        model: traced graph.
        node: an argument of a node.
    """
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else None


def add_constant(model: GraphModule, value: torch.Tensor, name: str, graph: Graph | None = None) -> Node:
    """Register a constant and insert its get_attr node at the current insertion point.

    Args:
        model: traced graph.
        value: the constant.
        name: base of its name; a number is appended.
        graph: a graph that will be the model's, where it is not yet.

    Returns:
        The get_attr node.
    """
    base, count = f"_{name}".replace(".", "_"), 0
    while hasattr(model, f"{base}_{count}"):
        count += 1
    model.register_buffer(f"{base}_{count}", value.detach().contiguous())
    node = (graph or model.graph).get_attr(f"{base}_{count}")
    node.meta["val"] = value.detach()
    return node


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, given by position or by keyword.

    Args:
        node: a call.
        index: position of the argument.
        name: keyword of the argument.
        default: returned if the argument is absent.
    """
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def replace(node: Node, new: Node) -> None:
    """Replace a node in all its uses and erase it.

    Args:
        node: the node to erase.
        new: the node that takes its place; it inherits the shape if it has none.
    """
    new.meta.setdefault("val", node.meta.get("val"))
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def name_of(node: Node) -> str:
    """Format a node as `module (operator)`; the node's own name where the trace records no module."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    operator = str(node.target).removeprefix("aten.").partition(".")[0]
    return f"{stack[-1][0] or node.name if stack else node.name} ({operator})"
