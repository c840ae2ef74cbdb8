"""Latency of exported models: measured by a stated protocol, kept with its raw samples, or estimated with its error.

    from mobilezoo_latency import profile, summarize
    report = profile("shvit_s1.fp32.tflite", device="host")
    print(summarize(report)["median_ms"], report.noisy)

Importing this package loads no runtime; the names above are fetched when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilezoo_latency.config import ProfileConfig
    from mobilezoo_latency.contract import Device, load_artifact
    from mobilezoo_latency.measuring import Comparison, compare, profile, summarize
    from mobilezoo_latency.protocol import load_protocol
    from mobilezoo_latency.registry import list_devices, load_device
    from mobilezoo_latency.store import Store

_HOME = {
    "Comparison": "measuring",
    "Device": "contract",
    "ProfileConfig": "config",
    "Store": "store",
    "compare": "measuring",
    "list_devices": "registry",
    "load_artifact": "contract",
    "load_device": "registry",
    "load_protocol": "protocol",
    "profile": "measuring",
    "summarize": "measuring",
}

__all__ = [
    "Comparison",
    "Device",
    "ProfileConfig",
    "Store",
    "compare",
    "list_devices",
    "load_artifact",
    "load_device",
    "load_protocol",
    "profile",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
