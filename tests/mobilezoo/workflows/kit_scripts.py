"""The scripts of Python kits, run in this process: the reference of kits in other languages."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class KitFinder:
    """The finder of a Python kit that draws boxes or masks."""

    def __init__(self, script: dict[str, Any], folder: Path) -> None:
        self._own, self._read = script["Finder"](folder), script["read"]

    def read(self, path: Path) -> Image.Image:
        image: Image.Image = self._read(str(path), len(self._own.model["preprocessing"]["mean"]))
        return image

    def draw(self, image: Image.Image) -> Image.Image:
        drawn: Image.Image = self._own.draw(image)[0]
        return drawn

    def mask(self, path: Path) -> np.ndarray:
        found: np.ndarray = self._own.mask(self.read(path))
        return found


def finder_of(kit: Path) -> KitFinder:
    """Load `draw.py` of a kit, which imports the `network.py` beside it."""
    sys.path.insert(0, str(kit))
    try:
        return KitFinder(runpy.run_path(str(kit / "draw.py")), kit)
    finally:
        sys.path.remove(str(kit))
        sys.modules.pop("network", None)
