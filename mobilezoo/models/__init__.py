"""The zoo: one file per family, one YAML per variant.

Importing this package imports no torch: records of searches and the model list are read in a blink.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilezoo.models.registry import create_model, list_models, load_model_config, recorded_config

__all__ = ["create_model", "list_models", "load_model_config", "recorded_config"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mobilezoo.models import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
