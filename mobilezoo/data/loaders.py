"""Loaders over timm's transforms, and small float batches for calibration and parity.

Loader processes hand over uint8 batches, a quarter of the bytes; normalization and random erasing run on the device.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from mobilezoo.data.config import DataConfig
from mobilezoo.data.datasets import FolderImages, ImageData
from mobilezoo.data.jpeg import JpegBatches, make_decoder
from mobilezoo.data.samplers import Distributed, EpochSampler, KeyedImages, StreamTransform
from mobilezoo.data.sources import open_data
from mobilezoo.data.transforms import Normalize, eval_pixels, eval_transform, train_transform
from mobilezoo.errors import ConfigError, DataError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, as_size
from mobilezoo.workers import end_with_parent

Batch = tuple[torch.Tensor, torch.Tensor]
READ_AHEAD = 4096
"""Images of a stream that a sample is taken from: a stream must be read up to each of them."""


class DeviceStage:
    """uint8 batches [B, C, H, W] or [B, H, W, C] → normalized float32 [B, C, H, W] on the device, partly erased."""

    def __init__(self, config: DataConfig, prep: Preprocessing, device: torch.device) -> None:
        from timm.data.random_erasing import RandomErasing

        self.device, self.channels_last = device, config.decoder != "pil"
        self.mean = torch.tensor(prep.mean, device=device).view(1, -1, 1, 1) * 255
        self.scale = 1 / (torch.tensor(prep.std, device=device).view(1, -1, 1, 1) * 255)
        share, mode = config.augment.random_erasing, config.augment.erasing_mode
        self.erase = RandomErasing(probability=share, mode=mode, device=device) if share else None

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Batch:
        x = x.to(self.device, non_blocking=True)
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        if x.dtype == torch.uint8:
            x = (x.float() - self.mean) * self.scale
        return (self.erase(x) if self.erase else x), y.to(self.device, non_blocking=True)


class TrainBatches:
    """Training batches (x [B, C, H, W] float32, y [B] int64) on the device, any epoch from any batch on."""

    def __init__(self, loader: DataLoader[Any], stage: DeviceStage, order: EpochSampler | None) -> None:
        self.loader, self.stage, self.order = loader, stage, order

    def __len__(self) -> int:
        return len(self.order) if self.order is not None else len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch.

        Args:
            epoch: decides order and augmentation, with the seed.
            start: batches to leave out. A stream has no order to skip in: it is read up to there.
        """
        self.loader.generator.manual_seed(epoch)
        if self.order is None:
            stream: Any = self.loader.dataset
            stream.transform.begin(epoch)
            if hasattr(stream, "set_epoch"):
                stream.set_epoch(epoch)
            for number, (x, y) in enumerate(self.loader):
                if number >= start:
                    yield self.stage(x, y)
            return
        self.order.epoch, self.order.start = epoch, start
        for x, y in self.loader:
            yield self.stage(x, y)


def train_loader(
    config: DataConfig,
    data: ImageData,
    resolution: int | Size,
    prep: Preprocessing,
    device: torch.device,
    seed: int = 0,
    distributed: Distributed | None = None,
) -> TrainBatches:
    """Shuffled, augmented batches of one process.

    Args:
        config: batch size, augmentation, decoder and loader processes.
        data: the opened training split; its channels are set to `prep`'s.
        resolution: (height, width), or the side of a square, where `augment.sizes` is empty.
        prep: mean, deviation and channels of the network's input.
        device: where the batches end up.
        seed: with the epoch it decides order and augmentation.
        distributed: this process among those that share the epoch; None for one.

    Raises:
        DataError: the split is smaller than one batch, or its source does not offer what is configured.
        ConfigError: the decoder gives other channels than the network takes, or the augmentation does not suit them.
    """
    distributed = distributed or Distributed()
    data.set_channels(prep.channels)
    stage = DeviceStage(config, prep, device)
    # A generator of its own: the seeds of loader processes must not be drawn from the one that training uses.
    shared: dict[str, Any] = {
        "generator": torch.Generator(),
        "num_workers": config.workers,
        "worker_init_fn": end_with_parent,
        "pin_memory": device.type == "cuda",
    }
    if isinstance(data.dataset, IterableDataset):
        vary = train_transform(config.augment, resolution, prep)
        return TrainBatches(_stream_loader(config, data, StreamTransform(vary, seed, distributed), shared), stage, None)
    size, whole = len(data.dataset), config.batch_size * distributed.world
    if size < whole:
        raise DataError(
            f"{size} training images are fewer than one batch of {whole}: "
            f"set data.batch_size to at most {size // distributed.world}"
        )
    sizes = config.augment.sizes or (as_size(resolution),)
    order = EpochSampler(size, config.batch_size, sizes, seed, distributed, config.augment.repeats)
    # Workers live for one epoch: the order's epoch and start are read when they begin.
    if config.decoder != "pil":
        images: Any = _jpeg_batches(config, data, prep.channels)
        loader: DataLoader[Any] = DataLoader(images, batch_sampler=order, collate_fn=_as_is, **shared)
        return TrainBatches(loader, stage, order)
    images = KeyedImages(data.dataset, {s: train_transform(config.augment, s, prep) for s in set(sizes)})
    loader = DataLoader(images, batch_sampler=order, collate_fn=_collate, **shared)
    return TrainBatches(loader, stage, order)


def _jpeg_batches(config: DataConfig, data: ImageData, channels: int) -> JpegBatches:
    if channels != 3:
        raise ConfigError(
            f"data.decoder={config.decoder} gives RGB, not the {channels} channel(s) of model_args.in_chans: "
            "set data.decoder=pil"
        )
    if not isinstance(data.dataset, FolderImages):
        raise DataError(f"data.decoder={config.decoder} reads folder:PATH sources only: set data.decoder=pil")
    decoder = make_decoder(config.decoder)
    images = data.dataset
    return JpegBatches(
        images.samples, config.augment, decoder, config.on_bad_image, data.bad_images, images.pixels, data.cache
    )


def _as_is(batch: Any) -> Any:
    return batch


def _stream_loader(
    config: DataConfig, data: ImageData, transform: StreamTransform, shared: dict[str, Any]
) -> DataLoader[Any]:
    """Streams (WebDataset, tfds, Hugging Face) shuffle themselves; sizes and repeats need an index."""
    augment = config.augment
    if augment.sizes or augment.repeats:
        raise DataError(f"{config.source!r} is a stream: augment.sizes and .repeats need a folder or hfds source")
    data.dataset.transform = transform
    if hasattr(data.dataset, "set_loader_cfg"):
        data.dataset.set_loader_cfg(num_workers=config.workers)
    return DataLoader(data.dataset, batch_size=config.batch_size, drop_last=True, collate_fn=_collate, **shared)


def _collate(items: list[tuple[Any, int]]) -> Batch:
    images = torch.stack([torch.as_tensor(image) for image, _ in items])
    return images, torch.tensor([target for _, target in items], dtype=torch.int64)


class EvalBatches:
    """A split's batches (x [B, C, H, W] float32, y [B]) on a device; every iteration starts from the first image."""

    def __init__(self, loader: DataLoader[Any], prep: Preprocessing, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.normalize = Normalize(prep, device)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for x, y in self.loader:
            yield self.normalize(x.to(self.device, non_blocking=True)), y.to(self.device, non_blocking=True)


def eval_loader(
    config: DataConfig,
    data: ImageData,
    resolution: int | Size,
    prep: Preprocessing,
    device: torch.device,
    distributed: Distributed | None = None,
    images: Sequence[int] | None = None,
) -> EvalBatches:
    """Batches of a split in order, preprocessed for evaluation.

    Args:
        config: batch size and loader processes.
        data: the opened split; its channels and transform are set here.
        resolution: (height, width), or the side of a square.
        prep: crop, resize, mean and deviation.
        device: where the batches end up.
        distributed: with several processes each gets every `world`-th image, except of streams.
        images: positions to take in one process; None takes all.
    """
    data.set_channels(prep.channels)
    dataset: Any = data.dataset
    dataset.transform = eval_pixels(prep, resolution)
    if hasattr(dataset, "set_loader_cfg"):
        dataset.set_loader_cfg(num_workers=config.workers)
    if distributed is not None and distributed.world > 1 and not isinstance(dataset, IterableDataset):
        images = range(distributed.rank, len(dataset), distributed.world)
    loader: DataLoader[Any] = DataLoader(
        dataset if images is None else Subset(dataset, images),
        batch_size=config.batch_size,
        num_workers=config.workers,
        worker_init_fn=end_with_parent,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    return EvalBatches(loader, prep, device)


def sample_batch(config: DataConfig, resolution: int | Size, prep: Preprocessing, count: int) -> np.ndarray:
    """Validation images spread evenly over the split, as one float32 array (N, C, H, W).

    Args:
        config: source and validation split.
        resolution: (height, width), or the side of a square.
        prep: crop, resize, mean and deviation.
        count: most images; a split with fewer gives all it has.

    Raises:
        DataError: the split has no images.
    """
    data = open_data(config, train=False)
    data.set_channels(prep.channels)
    transform = eval_transform(prep, resolution)
    images = [np.asarray(transform(image), dtype=np.float32) for image in _spread(data.dataset, count)]
    if not images:
        raise DataError(f"{config.source!r} has no images in its split {config.val_split!r}")
    return np.stack(images)


def _spread(dataset: Any, count: int) -> Iterator[Any]:
    """At most `count` images evenly spread over a split; over the first READ_AHEAD of a stream."""
    if isinstance(dataset, IterableDataset):
        stream: Any = dataset
        total = min(len(stream), READ_AHEAD)
        picked = set(spread_positions(total, count))
        yield from (image for i, (image, _) in enumerate(islice(stream, total)) if i in picked)
        return
    for i in spread_positions(len(dataset), count):
        yield dataset[i][0]


def spread_positions(total: int, count: int) -> list[int]:
    """Positions spread evenly over a sequence, its ends included.

    Args:
        total: length of the sequence.
        count: most positions; a shorter sequence gives all it has.
    """
    return [int(position) for position in np.linspace(0, total - 1, min(count, total)).astype(int)]
