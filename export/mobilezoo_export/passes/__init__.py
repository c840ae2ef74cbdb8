"""Rewrites of a traced network that keep what it computes and change how it is written.

Each pass is a module with one function `run(graph_module) -> int` (the number of places it changed). They work on the
functional ATen graph that `trace` returns, with shapes in `node.meta["val"]`, and are independent of the model: they
apply to any traced network. Every pass is tested alone for equal outputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch.fx import GraphModule

from mobilezoo.registry import Registry
from mobilezoo_export.passes.graph import refresh

NAMES = (
    "attention",
    "batchnorm",
    "canonical",
    "concat",
    "constants",
    "elu",
    "expand",
    "groupnorm",
    "half_pads",
    "hardsigmoid",
    "layernorm",
    "layout",
    "logs",
    "means",
    "nearest",
    "noop",
    "open_sizes",
    "pads",
    "pools",
    "products",
    "softmax",
    "splits",
    "stacked_sums",
    "swaps",
    "taps",
    "upsample",
    "upsample_last",
)
PASSES: Registry[Callable[[GraphModule], int]] = Registry(
    "graph pass",
    "passes",
    {name: f"{__name__}.{name}:run" for name in NAMES},
    callable,
    "a function run(graph_module) -> int, the number of places it changed",
)

COMMON = ("canonical", "noop", "constants", "batchnorm", "nearest", "expand", "stacked_sums")
"""Passes that every target gets, in order."""


def run_passes(model: GraphModule, example: torch.Tensor, names: Sequence[str] = COMMON) -> dict[str, int]:
    """Apply passes in place.

    Args:
        model: traced graph.
        example: (N, C, H, W) input that sets the shapes in `node.meta["val"]`.
        names: names of passes, or `package.module:function`, in order.

    Returns:
        Pass → number of places it changed.
    """
    changed = {}
    refresh(model, example)
    for name in names:
        before = str(model.graph)
        changed[name] = PASSES.load(name)(model)
        model.graph.eliminate_dead_code()
        if str(model.graph) == before:
            continue
        model.graph.lint()
        model.recompile()
        refresh(model, example)  # takes seconds for a thousand operators: only where a pass rewrote something
    return changed
