"""Sources of images: the embedded digits, ImageNet-style folders, and whatever timm's reader factory knows."""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.config import DataConfig
from mobilezoo.errors import DataError, UnknownNameError, require

BAD_IMAGE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError, tarfile.TarError)
"""What PIL raises for files that are no image, or damaged ones."""
TIMM_PREFIXES = ("hfds/", "hfids/", "tfds/", "wds/", "torch/")
READ_BY = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset"}
"""Libraries of the extra `data` behind timm's readers."""
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


class DigitImages(Dataset[Sample]):
    """scikit-learn's 1,797 scanned digits (UCI Optical Recognition of Handwritten Digits), 8×8 pixels, 16 greys.

    A stratified fifth (fixed seed) is the validation split, never trained on.
    """

    def __init__(self, train: bool) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        fit, held_out = train_test_split(
            range(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
        )
        self.indices = fit if train else held_out
        self.pixels = (digits.images * (255 / 16)).round().astype("uint8")
        self.targets = digits.target.tolist()
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        index = self.indices[position]
        image = Image.fromarray(self.pixels[index]).convert("RGB")
        return (self.transform(image) if self.transform else image), self.targets[index]


class ReadableImages(Dataset[Sample]):
    """Items of any of timm's readers; an unreadable one stops the run or is replaced by the next readable one."""

    def __init__(self, reader: Any, on_bad_image: str, bad_images: torch.Tensor) -> None:
        self.reader, self.on_bad_image, self.bad_images = reader, on_bad_image, bad_images
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        size = len(self.reader)
        for place in ((index + step) % size for step in range(size)):
            try:
                handle, target = self.reader[place]
                with handle, Image.open(handle) as opened:
                    image = opened.convert("RGB")
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
        self, folder: Path, on_bad_image: str, bad_images: torch.Tensor, cache: SmallCopies | None = None
    ) -> None:
        from timm.data.readers.reader_image_folder import find_images_and_targets

        self.samples, self.class_to_idx = find_images_and_targets(str(folder))
        self.cache = cache
        super().__init__(_Files(self.samples, cache), on_bad_image, bad_images)


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


def open_data(config: DataConfig, train: bool) -> ImageData:
    """Open one split of a source. Raises DataError or UnknownNameError."""
    bad_images = torch.zeros((), dtype=torch.int64).share_memory_()
    if config.cache is not None and not config.source.startswith("folder:"):
        raise DataError(f"data.cache={config.cache!r} keeps copies of folder:PATH images only: leave it out")
    if config.source == "digits":
        return ImageData(DigitImages(train), tuple(str(i) for i in range(10)), bad_images)
    if config.source.startswith("folder:"):
        return _open_folder(config, train, bad_images)
    if config.source.startswith("tar:"):
        return _open_tar(config, train, bad_images)
    if config.source.lower().startswith(TIMM_PREFIXES):
        return _open_timm(config, train, bad_images)
    raise UnknownNameError("data source", config.source, ("digits", "folder:PATH", "tar:PATH", *TIMM_PREFIXES))


def _open_folder(config: DataConfig, train: bool, bad_images: torch.Tensor) -> ImageData:
    root = Path(config.source.removeprefix("folder:")).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset folder not found: {str(root)!r}")
    split = config.train_split if train else config.val_split
    names = (split, *(("val", "valid", "test") if split == "validation" else ()))
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{str(root)!r} has no split folder {' or '.join(names)}: set data.{'train' if train else 'val'}_split"
        )
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if len(classes) < 2:
        raise DataError(f"{str(folder)!r} holds {len(classes)} class folder(s): at least two are needed, one per class")
    cache = SmallCopies(Path(config.cache)) if train and config.cache is not None else None
    dataset = FolderImages(folder, config.on_bad_image, bad_images, cache)
    if not dataset.samples:
        raise DataError(f"{str(folder)!r} holds no images in its {len(classes)} class folders")
    labels = tuple(sorted(dataset.class_to_idx, key=dataset.class_to_idx.__getitem__))
    return ImageData(dataset, labels, bad_images, cache)


def _open_tar(config: DataConfig, train: bool, bad_images: torch.Tensor) -> ImageData:
    """PATH/SPLIT.tar with class folders or class tars inside, or PATH/SPLIT/ with a tar per class (as in ImageNet)."""
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    root = Path(config.source.removeprefix("tar:")).expanduser()
    split = config.train_split if train else config.val_split
    names = (split, *(("val", "valid", "test") if split == "validation" else ()))
    places = [root / f"{name}.tar" for name in names] + [root / name for name in names]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise DataError(f"{str(root)!r} has neither {split}.tar nor a folder {split} of class tars")
    try:
        reader = ReaderImageInTar(str(found))
    except (OSError, ValueError, AssertionError, tarfile.TarError) as error:
        raise DataError(f"{str(found)!r} cannot be read as tar with images ({error})") from None
    labels = _timm_labels(reader)
    if len(labels) < 2:
        raise DataError(f"{str(found)!r} holds {len(labels)} class(es): at least two are needed, a folder or tar each")
    return ImageData(ReadableImages(reader, config.on_bad_image, bad_images), labels, bad_images)


def _open_timm(config: DataConfig, train: bool, bad_images: torch.Tensor) -> ImageData:
    from timm.data import ImageDataset, create_dataset

    if library := READ_BY.get(config.source.partition("/")[0]):
        require(library, "data")
    split = config.train_split if train else config.val_split
    try:
        dataset = create_dataset(
            config.source, root=config.root, split=split, is_training=train, batch_size=config.batch_size
        )
    except Exception as error:  # timm's readers raise whatever their library raises
        raise DataError(f"cannot open {config.source!r} split {split!r}: {type(error).__name__}: {error}") from error
    labels = _timm_labels(dataset)
    if isinstance(dataset, ImageDataset):  # read through ours, which counts what cannot be read
        dataset = ReadableImages(dataset.reader, config.on_bad_image, bad_images)
    if not labels and config.num_classes is None:
        raise DataError(f"{config.source!r} does not tell its classes: set data.num_classes")
    return ImageData(dataset, labels or tuple(str(i) for i in range(config.num_classes or 0)), bad_images)


def _timm_labels(dataset: Any) -> tuple[str, ...]:
    """Class names where the reader or the torchvision dataset knows them."""
    reader = getattr(dataset, "reader", dataset)
    features = getattr(getattr(reader, "dataset", None), "features", None)
    if features is not None and hasattr(features.get("label"), "names"):
        return tuple(features["label"].names)
    mapping = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None)
    return tuple(sorted(mapping, key=mapping.__getitem__)) if mapping else ()
