"""Opens a split by the name of its source: the embedded digits, ImageNet-style folders and tars, or timm's readers."""

from collections.abc import Callable
from pathlib import Path

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.config import DataConfig
from mobilezoo.data.datasets import (
    DigitImages,
    FolderImages,
    ImageData,
    ReadableImages,
    pixels_of,
    unreadable_count,
)
from mobilezoo.data.names import split_names
from mobilezoo.data.scan import classes_of_folder, describe, scan_folder
from mobilezoo.data.tars import TarReader, TarSplit
from mobilezoo.data.timm_sources import TIMM_PREFIXES
from mobilezoo.errors import DataError, UnknownNameError, wrong_kind
from mobilezoo.plugins import faults
from mobilezoo.registry import Registry, is_place

SOURCES: Registry[Callable[[DataConfig, bool], ImageData]] = Registry(
    "data source",
    "data_sources",
    {
        "digits": f"{__name__}:open_digits",
        "folder": f"{__name__}:open_folder",
        "tar": f"{__name__}:open_tar",
        "timm": "mobilezoo.data.timm_sources:open_timm",
    },
    callable,
    "a callable (DataConfig, train) that opens a split as ImageData",
)
"""Source → what opens one of its splits. `data.source` is its name, or `name:ARGUMENT`."""


def open_data(config: DataConfig, train: bool) -> ImageData:
    """Open one split of a source; both splits of it have the same classes in the same order.

    Args:
        config: source, splits and the meaning of pixels.
        train: the training split, else the validation split.

    Raises:
        DataError: the split is absent, cannot be read, or has faulty classes.
        UnknownNameError: no source is called that.
        ConfigError: a plugin's source cannot be loaded.
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


def open_digits(config: DataConfig, train: bool) -> ImageData:
    """The source `digits`.

    Args:
        config: the meaning of pixels.
        train: the training split, else the validation split.
    """
    return ImageData(DigitImages(train, pixels_of(config)), tuple(str(i) for i in range(10)), unreadable_count())


def open_folder(config: DataConfig, train: bool) -> ImageData:
    """The source `folder:PATH`: PATH/SPLIT/CLASS/...

    Args:
        config: source, splits, cache and the meaning of pixels.
        train: the training split, else the validation split, which has the training split's classes.

    Raises:
        DataError: no such folder or split, or its classes are faulty.
    """
    bad_images, pixels = unreadable_count(), pixels_of(config)
    root = Path(config.source.removeprefix("folder:")).expanduser()
    if not root.is_dir():
        raise DataError(wrong_kind(root, "dataset folder", folder=True))
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

    Args:
        config: source, splits and the meaning of pixels.
        train: the training split, else the validation split, which has the training split's classes.

    Raises:
        DataError: no such archive, a damaged one, or its classes are faulty.
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
