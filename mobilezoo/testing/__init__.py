"""Conformance suites for extensions: subclass one in a test file, name the object under test, run pytest.

    from mobilezoo.testing import FamilyConformance

    class TestMine(FamilyConformance):
        model, strides = "mine_100", (4, 8, 16, 32)

Importing this package loads neither pytest nor torch; each suite is imported when its name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilezoo.testing.devices import DeviceConformance
    from mobilezoo.testing.engines import EngineConformance
    from mobilezoo.testing.families import FamilyConformance
    from mobilezoo.testing.targets import TargetConformance

_HOME = {
    "DeviceConformance": "devices",
    "EngineConformance": "engines",
    "FamilyConformance": "families",
    "TargetConformance": "targets",
}

__all__ = ["DeviceConformance", "EngineConformance", "FamilyConformance", "TargetConformance"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
