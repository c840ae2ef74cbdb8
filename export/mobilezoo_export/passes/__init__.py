"""Rewrites of a traced network that keep what it computes and change how it is written.

Each pass is a module with one function `run(graph_module) -> int` (how many places it changed). They work on the
functional ATen graph that `trace` returns, with shapes in `node.meta["val"]`, and know nothing of any model: a user's
own network profits as much as the zoo's. Every pass is tested alone for equal outputs.
"""

import importlib
from collections.abc import Sequence

import torch
from torch.fx import GraphModule

from mobilezoo_export.passes.graph import refresh

COMMON = ("canonical", "noop", "constants", "batchnorm", "nearest", "expand")
"""Passes that every target gets, in order."""


def run_passes(model: GraphModule, example: torch.Tensor, names: Sequence[str] = COMMON) -> dict[str, int]:
    """Apply passes by name, in place; returns how many places each changed."""
    changed = {}
    for name in names:
        refresh(model, example)
        changed[name] = importlib.import_module(f"mobilezoo_export.passes.{name}").run(model)
        model.graph.eliminate_dead_code()
        model.graph.lint()
        model.recompile()
    refresh(model, example)
    return changed
