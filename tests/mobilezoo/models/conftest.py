"""The official networks' reference outputs and measured facts, kept in tests/data."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.testing.references import Reference, load_reference

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def references() -> Path:
    """The folder of reference outputs."""
    return DATA / "references"


@pytest.fixture(scope="session")
def reference(references: Path) -> Callable[[str], Reference]:
    """Official name → what the official implementation computed."""
    return partial(load_reference, references)


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """Official name → what was measured on the official code."""
    variants: dict[str, Any] = json.loads((DATA / "core-variants.json").read_text(encoding="utf-8"))["variants"]
    return variants
