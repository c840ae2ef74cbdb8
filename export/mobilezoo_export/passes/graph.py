"""Small helpers that every pass uses: tracing, shapes, constants."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from mobilezoo.errors import ExportError, first_line

aten = torch.ops.aten


def trace(model: nn.Module, example: torch.Tensor) -> GraphModule:
    """The network as a flat functional ATen graph with high-level operators kept (conv2d, linear, group_norm, ...).

    Raises ExportError when the network cannot be traced (data-dependent control flow, unsupported Python).
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
    """Recompute `node.meta["val"]` (fake tensors) of every node."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    with torch.no_grad():
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensorProp(model, mode).propagate(example.to("cpu"))


def calls(model: GraphModule, *targets: Any) -> Iterator[Node]:
    """Nodes that call one of the operators, in graph order; safe against edits while iterating."""
    for node in list(model.graph.nodes):
        if node.op == "call_function" and node.target in targets:
            yield node


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape of a node's tensor."""
    return tuple(int(size) for size in node.meta["val"].shape)


def constant(model: GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor behind a get_attr node, or None for anything computed."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else None


def add_constant(model: GraphModule, value: torch.Tensor, name: str) -> Node:
    """Register a new constant under a free name; returns its get_attr node, at the current insertion point."""
    base, count = f"_{name}".replace(".", "_"), 0
    while hasattr(model, f"{base}_{count}"):
        count += 1
    model.register_buffer(f"{base}_{count}", value.detach().contiguous())
    node = model.graph.get_attr(f"{base}_{count}")
    node.meta["val"] = value.detach()
    return node


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def replace(node: Node, new: Node) -> None:
    """Let every user of `node` take `new`, and drop `node`."""
    new.meta.setdefault("val", node.meta.get("val"))
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)
