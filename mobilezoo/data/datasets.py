"""Sources of images: the embedded digits, ImageNet-style folders and tars, and whatever timm's reader factory knows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.config import DataConfig
from mobilezoo.data.names import EXTENSIONS, split_names
from mobilezoo.data.pixels import BAD_IMAGE, CHANNELS, Pixels, color_of
from mobilezoo.data.scan import Scan, classes_of_folder, describe, scan_folder
from mobilezoo.data.tars import TarReader, TarSplit
from mobilezoo.errors import ConfigError, DataError, UnknownNameError, first_line, require
from mobilezoo.plugins import faults
from mobilezoo.registry import Registry, is_place
from mobilezoo.trust import require_commands_allowed

TIMM_PREFIXES = ("hfds/", "hfids/", "tfds/", "wds/", "torch/")
READ_BY = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset"}
"""Libraries of the extra `data` behind timm's readers."""
Sample = tuple[Any, int]
SOURCES: "Registry[Callable[[DataConfig, bool], ImageData]]" = Registry(
    "data source",
    "data_sources",
    {
        "digits": f"{__name__}:open_digits",
        "folder": f"{__name__}:open_folder",
        "tar": f"{__name__}:open_tar",
        "timm": f"{__name__}:open_timm",
    },
    callable,
    "a callable (DataConfig, train) that opens a split as ImageData",
)
"""Source → what opens one of its splits. `data.source` is its name, or `name:ARGUMENT`."""


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


def open_data(config: DataConfig, train: bool) -> ImageData:
    """Open one split of a source; both splits of it have the same classes in the same order.

    Raises DataError, UnknownNameError or ConfigError.
    """
    if config.cache is not None and not config.source.startswith("folder:"):
        raise DataError(f"data.cache={config.cache!r} keeps copies of folder:PATH images only: leave it out")
    return SOURCES.load(_name_of(config.source))(config, train)


def _name_of(source: str) -> str:
    """The registered name of a source: `NAME`, `NAME:ARGUMENT`, one of timm's, or a user's own place."""
    if source.lower().startswith(TIMM_PREFIXES):
        return "timm"
    name, colon, _ = source.partition(":")
    named = name in SOURCES.names() and name != "timm" and not (colon and name == "digits")
    if named or is_place(source):
        return name if named else source
    known = ("digits", "folder:PATH", "tar:PATH", *TIMM_PREFIXES, *SOURCES.names()[len(SOURCES.builtin) :])
    raise UnknownNameError("data source", source, known, faults())


def unreadable_count() -> torch.Tensor:
    """A new `ImageData.bad_images`."""
    return torch.zeros((), dtype=torch.int64).share_memory_()


def pixels_of(config: DataConfig) -> Pixels:
    """What a config says of the meaning of pixels."""
    return Pixels(config.exif, color_of(config.background))


def open_digits(config: DataConfig, train: bool) -> ImageData:
    """The source `digits`."""
    return ImageData(DigitImages(train, pixels_of(config)), tuple(str(i) for i in range(10)), unreadable_count())


def open_folder(config: DataConfig, train: bool) -> ImageData:
    """The source `folder:PATH`: PATH/SPLIT/CLASS/..."""
    bad_images, pixels = unreadable_count(), pixels_of(config)
    root = Path(config.source.removeprefix("folder:")).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset folder not found: {str(root)!r}")
    split = config.train_split if train else config.val_split
    folder = _split_folder(root, split)
    if folder is None:
        names = " or ".join(split_names(split))
        raise DataError(f"{str(root)!r} has no split folder {names}: set data.{'train' if train else 'val'}_split")
    training = None if train else _split_folder(root, config.train_split)
    classes = classes_of_folder(training) if training is not None and training != folder else None
    scan = scan_folder(folder, classes, fewest=2 if train else 1).checked()
    cache = SmallCopies(Path(config.cache), pixels) if train and config.cache is not None else None
    dataset = FolderImages(folder, scan, config.on_bad_image, bad_images, pixels, cache)
    return ImageData(dataset, scan.classes, bad_images, cache, describe(scan.left_out, str(folder)))


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in split_names(split) if (root / name).is_dir()), None)


def open_tar(config: DataConfig, train: bool) -> ImageData:
    """The source `tar:PATH`.

    PATH/SPLIT.tar has class folders or class tars inside; or PATH/SPLIT/ has a tar per class (as in ImageNet).
    """
    bad_images, pixels = unreadable_count(), pixels_of(config)
    root = Path(config.source.removeprefix("tar:")).expanduser()
    split = config.train_split if train else config.val_split
    found = _split_tar(root, split)
    if found is None:
        raise DataError(f"{str(root)!r} has neither {split}.tar nor a folder {split} of class tars")
    training = None if train else _split_tar(root, config.train_split)
    other = training is not None and training != found
    classes = TarSplit(training).scan().checked().classes if training is not None and other else None
    archive = TarSplit(found)
    scan = archive.scan(classes, fewest=2 if train else 1).checked()
    dataset = ReadableImages(TarReader(archive, scan.samples), config.on_bad_image, bad_images, pixels)
    return ImageData(dataset, scan.classes, bad_images, left_out=describe(scan.left_out, str(found)))


def _split_tar(root: Path, split: str) -> Path | None:
    names = split_names(split)
    places = [root / f"{name}.tar" for name in names] + [root / name for name in names]
    return next((place for place in places if place.exists()), None)


def open_timm(config: DataConfig, train: bool) -> ImageData:
    """Sources that timm reads: `hfds/…`, `wds/…`, `torch/…`."""
    bad_images, pixels = unreadable_count(), pixels_of(config)
    if library := READ_BY.get(config.source.partition("/")[0].lower()):
        require(library, "data")
    split = config.train_split if train else config.val_split
    for key, value in (("source", config.source), ("root", config.root), ("split", split)):
        if "pipe:" in (value or "").lower():
            require_commands_allowed(f"data.{key}={value!r}")
    if config.source.lower().startswith(("torch/folder", "torch/image_folder")):
        raise DataError(f"data.source={config.source!r} has a class rule of its own: use folder:PATH")
    if config.source.lower().startswith("wds/") and ":" not in f"{config.root or ''}{split}":
        return _open_shards(config, split, bad_images, pixels)
    dataset = _timm_dataset(config, split, train)
    labels = _timm_labels(dataset)
    if not labels and config.num_classes is None:
        raise DataError(f"{config.source!r} does not tell its classes: set data.num_classes")
    return ImageData(_ours(dataset, config, bad_images, pixels), labels or _numbers(config.num_classes), bad_images)


def _open_shards(config: DataConfig, split: str, bad_images: torch.Tensor, pixels: Pixels) -> ImageData:
    from mobilezoo.data.shards import open_shards

    if config.num_classes is None:
        raise DataError(f"{config.source!r} does not tell its classes: set data.num_classes")
    shards = open_shards(config, split)
    scan = shards.scan(_numbers(config.num_classes)).checked()
    dataset = ReadableImages(TarReader(shards, scan.samples), config.on_bad_image, bad_images, pixels)
    return ImageData(dataset, scan.classes, bad_images, left_out=describe(scan.left_out, split))


def _numbers(count: int | None) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count or 0))


def _timm_dataset(config: DataConfig, split: str, train: bool) -> Any:
    from timm.data import create_dataset

    shards = {"input_key": ";".join(extension[1:] for extension in sorted(EXTENSIONS))}
    try:
        return create_dataset(
            config.source,
            root=config.root,
            split=split,
            is_training=train,
            batch_size=config.batch_size,
            input_img_mode="",  # the mode of the file: `Pixels` knows what it means
            **(shards if config.source.lower().startswith("wds/") else {}),
        )
    except Exception as error:  # timm's readers raise whatever their library raises
        raise DataError(
            f"cannot open {config.source!r} split {split!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _ours(dataset: Any, config: DataConfig, bad_images: torch.Tensor, pixels: Pixels) -> Any:
    """A dataset of timm or torchvision behind our reading of pixels, which also counts what cannot be read."""
    from timm.data import ImageDataset

    if isinstance(dataset, ImageDataset):
        return ReadableImages(dataset.reader, config.on_bad_image, bad_images, pixels)
    return StreamImages(dataset, pixels) if isinstance(dataset, IterableDataset) else DecodedImages(dataset, pixels)


def _timm_labels(dataset: Any) -> tuple[str, ...]:
    """Class names where the reader or the torchvision dataset knows them."""
    reader = getattr(dataset, "reader", dataset)
    features = getattr(getattr(reader, "dataset", None), "features", None)
    if features is not None and hasattr(features.get("label"), "names"):
        return tuple(features["label"].names)
    mapping = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None)
    return tuple(sorted(mapping, key=mapping.__getitem__)) if mapping else ()
