"""Sources that timm's readers open: Hugging Face, WebDataset, TensorFlow and torchvision data sets."""

from typing import Any

import torch
from torch.utils.data import IterableDataset

from mobilezoo.data.config import DataConfig
from mobilezoo.data.datasets import (
    DecodedImages,
    ImageData,
    ReadableImages,
    StreamImages,
    pixels_of,
    unreadable_count,
)
from mobilezoo.data.names import EXTENSIONS
from mobilezoo.data.pixels import Pixels
from mobilezoo.data.scan import describe
from mobilezoo.data.tars import TarReader
from mobilezoo.errors import DataError, first_line, require
from mobilezoo.trust import require_commands_allowed

TIMM_PREFIXES = ("hfds/", "hfids/", "tfds/", "wds/", "torch/")
READ_BY = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset"}
"""Libraries of the extra `data` behind timm's readers."""


def open_timm(config: DataConfig, train: bool) -> ImageData:
    """Sources that timm reads: `hfds/…`, `wds/…`, `torch/…`.

    Args:
        config: source, root, splits and the meaning of pixels.
        train: the training split, else the validation split.

    Raises:
        DataError: timm cannot open the split, or its classes are unknown and `data.num_classes` is not set.
        MobilezooError: the reader's library is not installed, or a `pipe:` command is not allowed.
    """
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
            input_img_mode="",  # the mode of the file: `Pixels` converts it
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
    """Class names in order, from the reader or the torchvision data set; () where neither has them."""
    reader = getattr(dataset, "reader", dataset)
    features = getattr(getattr(reader, "dataset", None), "features", None)
    if features is not None and hasattr(features.get("label"), "names"):
        return tuple(features["label"].names)
    mapping = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None)
    return tuple(sorted(mapping, key=mapping.__getitem__)) if mapping else ()
