"""mobilezoo: mobile vision backbones, from a paper to a phone.

After `import mobilezoo`, `timm.create_model` builds every model of the zoo by name. The import itself stays light: the
models are registered when timm is imported, or at once where it already is.
"""

from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"
__all__ = [
    "Hooks",
    "MobilezooError",
    "card",
    "create_model",
    "doctor",
    "evaluate",
    "export",
    "fuse",
    "kit",
    "list_models",
    "load_model",
    "predict",
    "profile",
    "recommend",
    "report",
    "search",
    "train",
]

API = ("card", "doctor", "evaluate", "export", "kit", "load_model", "predict", "profile", "recommend")
PACKAGES = ("report", "search", "train")
"""Packages that are functions of the API as well, see `callable_package`."""
HOMES = {
    "Hooks": "mobilezoo.workflows.hooks",
    "MobilezooError": "mobilezoo.errors",
    "create_model": "mobilezoo.models.registry",
    "fuse": "mobilezoo.models.fuse",
    "list_models": "mobilezoo.models.registry",
    **dict.fromkeys(API, "mobilezoo.api"),
}
"""Module of each public name, imported when the name is first used."""

if TYPE_CHECKING:
    from mobilezoo.api import (
        card,
        doctor,
        evaluate,
        export,
        kit,
        load_model,
        predict,
        profile,
        recommend,
        report,
        search,
        train,
    )
    from mobilezoo.errors import MobilezooError
    from mobilezoo.models import create_model, list_models
    from mobilezoo.models.fuse import fuse
    from mobilezoo.workflows.hooks import Hooks


def _register(_timm: Any) -> None:
    from mobilezoo.models.registry import register_with_timm

    register_with_timm()


wrapt.register_post_import_hook(_register, "timm")


def api_function(name: str) -> Any:
    """Returns the function of `mobilezoo.api` that a callable package of this name runs."""
    from mobilezoo import api

    return getattr(api, name)


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        if name in PACKAGES:
            return importlib.import_module(f"mobilezoo.{name}")

        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
