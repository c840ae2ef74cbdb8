"""Data sets whose items are (image, class index): digits, files of any reader, decoded images and streams.

Every image passes `Pixels`, so that all of them give the same channels. `mobilezoo.data.sources` opens them by name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.config import DataConfig
from mobilezoo.data.pixels import BAD_IMAGE, CHANNELS, Pixels, color_of
from mobilezoo.data.scan import Scan
from mobilezoo.errors import ConfigError, DataError

Sample = tuple[Any, int]


@dataclass
class ImageData:
    """One split: a dataset whose items are (image, class index), its class names, and its unreadable files."""

    dataset: Any
    labels: tuple[str, ...]
    bad_images: torch.Tensor
    """int64 scalar in shared memory: loader processes count unreadable images here."""
    cache: SmallCopies | None = None
    """Where small copies of its images are kept."""
    left_out: str = ""
    """A line on the files that are no images, with their number; empty where there are none."""

    def set_channels(self, channels: int) -> None:
        """Give images of 1 (grey), 3 (RGB) or 4 (RGBA) channels from here on. Raises ConfigError for other numbers."""
        if channels not in CHANNELS:
            raise ConfigError(f"images give 1 channel (grey), 3 (RGB) or 4 (RGBA), the network takes {channels}")
        self.dataset.pixels = self.dataset.pixels._replace(channels=channels)
        if self.cache is not None:
            self.cache.pixels = self.dataset.pixels


class DigitImages(Dataset[Sample]):
    """scikit-learn's 1,797 scanned digits (UCI Optical Recognition of Handwritten Digits), 8×8 pixels, 16 greys.

    A stratified fifth (fixed seed) is the validation split, never trained on.
    """

    def __init__(self, train: bool, pixels: Pixels) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        fit, held_out = train_test_split(
            range(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
        )
        self.indices = fit if train else held_out
        self.scans = (digits.images * (255 / 16)).round().astype("uint8")
        self.targets = digits.target.tolist()
        self.pixels = pixels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        index = self.indices[position]
        image = self.pixels.convert(Image.fromarray(self.scans[index]))
        return (self.transform(image) if self.transform else image), self.targets[index]


class ReadableImages(Dataset[Sample]):
    """Items of any of timm's readers; an unreadable one stops the run or is replaced by the next readable one."""

    def __init__(self, reader: Any, on_bad_image: str, bad_images: torch.Tensor, pixels: Pixels) -> None:
        self.reader, self.on_bad_image, self.bad_images, self.pixels = reader, on_bad_image, bad_images, pixels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        size = len(self.reader)
        for place in ((index + step) % size for step in range(size)):
            try:
                handle, target = self.reader[place]
                with handle:
                    image = self.pixels.read(handle)
            except BAD_IMAGE as error:
                name = self.reader.filename(place)
                if self.on_bad_image == "stop":
                    raise DataError(
                        f"unreadable image {str(name)!r} ({error}): remove it, or set data.on_bad_image=skip"
                    ) from None
                self.bad_images += 1
                continue
            return (self.transform(image) if self.transform else image), int(target)
        raise DataError(f"no readable image among {size} files, the last was {str(name)!r}")


class FolderImages(ReadableImages):
    """Images in one folder per class."""

    def __init__(
        self, folder: Path, scan: Scan, on_bad_image: str, bad_images: torch.Tensor, pixels: Pixels, cache: Any = None
    ) -> None:
        self.samples = [(f"{folder}/{name}", target) for name, target in scan.samples]
        self.cache: SmallCopies | None = cache
        super().__init__(_Files(self.samples, self.cache), on_bad_image, bad_images, pixels)


class _Files:
    """(path, class) pairs as a reader."""

    def __init__(self, samples: list[tuple[str, int]], cache: SmallCopies | None) -> None:
        self.samples, self.cache = samples, cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, target = self.samples[index]
        return Path(self.cache(path) if self.cache else path).open("rb"), target

    def filename(self, index: int) -> str:
        return self.samples[index][0]


class DecodedImages(Dataset[Sample]):
    """torchvision's datasets, whose items are PIL images of any mode."""

    def __init__(self, dataset: Any, pixels: Pixels) -> None:
        self.dataset, self.pixels = dataset, pixels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        opened, target = self.dataset[index]
        image = self.pixels.convert(opened)
        return (self.transform(image) if self.transform else image), int(target)


class StreamImages(IterableDataset[Sample]):
    """Streams of timm's readers, which yield PIL images of any mode."""

    def __init__(self, stream: Any, pixels: Pixels) -> None:
        self.stream, self.pixels = stream, pixels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Sample]:
        for opened, target in self.stream:
            image = self.pixels.convert(opened)
            yield (self.transform(image) if self.transform else image), int(target)

    def set_epoch(self, count: int) -> None:
        self.stream.set_epoch(count)

    def set_loader_cfg(self, num_workers: int | None = None) -> None:
        self.stream.set_loader_cfg(num_workers=num_workers)


def unreadable_count() -> torch.Tensor:
    """A new `ImageData.bad_images`."""
    return torch.zeros((), dtype=torch.int64).share_memory_()


def pixels_of(config: DataConfig) -> Pixels:
    """The meaning of pixels in a config: EXIF orientation and the color behind transparent ones."""
    return Pixels(config.exif, color_of(config.background))
