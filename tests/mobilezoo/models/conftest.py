"""The official networks' reference outputs and measured facts, from ../shared."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Reference = tuple[dict[str, Tensor], Tensor, Tensor]


@pytest.fixture(scope="session")
def reference(shared: Path) -> Callable[[str], Reference]:
    """Official name → (state dict in the official format, images, the official network's logits)."""
    spec = importlib.util.spec_from_file_location("golden", shared / "parity" / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)

    def load(name: str) -> Reference:
        state, x, logits = golden.load(name)
        return {k: torch.from_numpy(v.copy()) for k, v in state.items()}, torch.from_numpy(x), torch.from_numpy(logits)

    return load


@pytest.fixture(scope="session")
def facts(shared: Path) -> dict[str, Any]:
    """Official name → what was measured on the official code."""
    variants: dict[str, Any] = json.loads((shared / "facts" / "core-variants.json").read_text())["variants"]
    return variants
