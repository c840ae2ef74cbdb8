"""mobilezoo: mobile vision backbones, from a paper to a phone.

After `import mobilezoo`, `timm.create_model` knows every model of the zoo; the import itself stays light, because the
models register only when timm is (or has been) imported.
"""

from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"
__all__ = ["create_model", "fuse", "list_models"]

if TYPE_CHECKING:
    from mobilezoo.models import create_model, fuse, list_models


def _register(_timm: Any) -> None:
    from mobilezoo.models.registry import register_with_timm

    register_with_timm()


wrapt.register_post_import_hook(_register, "timm")


def __getattr__(name: str) -> Any:
    if name in __all__:
        import mobilezoo.models

        return getattr(mobilezoo.models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
