"""Images in: named sources, splits, loaders and small float batches.

Importing this package imports no torch: configs and records of data are read in a blink.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilezoo.data.config import Augment, DataConfig
    from mobilezoo.data.datasets import ImageData
    from mobilezoo.data.loaders import eval_loader, sample_batch, train_loader
    from mobilezoo.data.sources import open_data

__all__ = ["Augment", "DataConfig", "ImageData", "eval_loader", "open_data", "sample_batch", "train_loader"]

HOMES = {
    "config": ("Augment", "DataConfig"),
    "datasets": ("ImageData",),
    "loaders": ("eval_loader", "sample_batch", "train_loader"),
    "sources": ("open_data",),
}
"""Module of each public name, imported when the name is first used."""


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
