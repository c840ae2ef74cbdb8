"""Plugins that are there for one test."""

import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from mobilezoo import plugins


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that installs plugins: name → object behind the entry point, or None for a module that is missing."""
    points: list[EntryPoint] = []

    def add(**found: Any) -> None:
        for name, plugin in found.items():
            if plugin is not None:
                module = types.ModuleType(f"plugin_{name}")
                module.PLUGIN = plugin  # type: ignore[attr-defined]
                monkeypatch.setitem(sys.modules, f"plugin_{name}", module)
            points.append(EntryPoint(name, f"plugin_{name}:PLUGIN", plugins.GROUP))
        plugins.installed_plugins.cache_clear()

    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    plugins.installed_plugins.cache_clear()
    yield add
    plugins.installed_plugins.cache_clear()
