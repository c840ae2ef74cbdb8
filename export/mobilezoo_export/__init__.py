"""Phone formats from a network, each file proven right by running it.

    from mobilezoo_export import ExportConfig, ModelSpec, export_model, list_targets, load_runner

Importing this package loads neither torch nor any toolchain; the names above are fetched when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilezoo_export.apart import FileApart, open_artifact
    from mobilezoo_export.config import ExportConfig
    from mobilezoo_export.contract import Exporter, Runner
    from mobilezoo_export.pipeline import export_model
    from mobilezoo_export.records import ExportHooks, ExportOptions, ExportResult, ExportSpec, ModelSpec, ProofImages
    from mobilezoo_export.registry import list_targets, load_exporter, load_runner
    from mobilezoo_export.session import ExportSession

_HOME = {
    "ExportConfig": "config",
    "ExportHooks": "records",
    "ExportOptions": "records",
    "ExportResult": "records",
    "ExportSession": "session",
    "ExportSpec": "records",
    "Exporter": "contract",
    "FileApart": "apart",
    "ModelSpec": "records",
    "ProofImages": "records",
    "Runner": "contract",
    "export_model": "pipeline",
    "list_targets": "registry",
    "load_exporter": "registry",
    "load_runner": "registry",
    "open_artifact": "apart",
}

__all__ = [
    "ExportConfig",
    "ExportHooks",
    "ExportOptions",
    "ExportResult",
    "ExportSession",
    "ExportSpec",
    "Exporter",
    "FileApart",
    "ModelSpec",
    "ProofImages",
    "Runner",
    "export_model",
    "list_targets",
    "load_exporter",
    "load_runner",
    "open_artifact",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
