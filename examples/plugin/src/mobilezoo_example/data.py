"""Images of gradients in four directions, drawn as they are asked for."""

from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from mobilezoo.data.config import DataConfig
from mobilezoo.data.datasets import ImageData, pixels_of, unreadable_count

CLASSES = ("right", "down", "left", "up")


class Gradients(Dataset[tuple[Any, int]]):
    """16×16 pixels; `transform` and `pixels` are set by the loader."""

    def __init__(self, config: DataConfig, train: bool) -> None:
        self.start, self.size = (0, 64) if train else (64, 32)
        self.pixels, self.transform = pixels_of(config), None  # type: Any, Callable[[Image.Image], Any] | None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        rng = np.random.default_rng(self.start + index)
        ramp = np.linspace(0, 200, 16) + rng.uniform(0, 55, (16, 16))
        image = self.pixels.convert(Image.fromarray(np.rot90(ramp, -(index % 4)).astype("uint8")))
        return (self.transform(image) if self.transform else image), index % 4


def open_gradients(config: DataConfig, train: bool) -> ImageData:
    return ImageData(Gradients(config, train), CLASSES, unreadable_count())
