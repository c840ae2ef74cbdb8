"""Loaders over timm's transforms, and small float batches for calibration and parity."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data.config import DataConfig
from mobilezoo.data.datasets import ImageData, open_data
from mobilezoo.errors import DataError


def train_loader(
    config: DataConfig, data: ImageData, resolution: int, prep: Preprocessing, device: torch.device
) -> Any:
    """Endlessly re-iterable batches (x [B, 3, R, R] float32, y [B] int64), shuffled, augmented, normalised.

    The last partial batch of an epoch is dropped. Order and augmentation come from the global generators, so seeding
    them before `iter()` repeats an epoch exactly.
    """
    from timm.data import create_loader

    size = len(data.dataset) if hasattr(data.dataset, "__len__") else None
    if size is not None and size < config.batch_size:
        raise DataError(f"{size} training images are fewer than one batch: set data.batch_size to at most {size}")
    augment = config.augment
    loader = create_loader(
        data.dataset,
        input_size=(3, resolution, resolution),
        batch_size=config.batch_size,
        is_training=True,
        re_prob=augment.random_erasing,
        re_mode=augment.erasing_mode,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=prep.mean,
        std=prep.std,
        num_workers=config.workers,
        device=device,
        use_prefetcher=device.type == "cuda",
        pin_memory=device.type == "cuda",
        persistent_workers=False,  # workers keep generator state, which a resumed run would not have
        input_size_choices=augment.sizes or None,
    )
    return _with_repeats(loader, data, augment.repeats) if augment.repeats else loader


def eval_loader(config: DataConfig, data: ImageData, resolution: int, prep: Preprocessing, device: torch.device) -> Any:
    """Batches of a split in order, resized and centre-cropped as `prep` says."""
    from timm.data import create_loader

    return create_loader(
        data.dataset,
        input_size=(3, resolution, resolution),
        batch_size=config.batch_size,
        is_training=False,
        interpolation=prep.interpolation,
        mean=prep.mean,
        std=prep.std,
        crop_pct=prep.crop_pct,
        num_workers=config.workers,
        device=device,
        use_prefetcher=device.type == "cuda",
        pin_memory=device.type == "cuda",
        persistent_workers=False,
    )


def sample_batch(config: DataConfig, resolution: int, prep: Preprocessing, count: int) -> np.ndarray:
    """`count` validation images spread evenly over the split, as one float32 array [count, 3, R, R]."""
    data = open_data(config, train=False)
    total = len(data.dataset)
    if total < count:
        raise DataError(f"{config.source!r} has {total} validation images, {count} are needed")
    from timm.data import create_transform

    data.dataset.transform = create_transform(
        (3, resolution, resolution),
        interpolation=prep.interpolation,
        mean=prep.mean,
        std=prep.std,
        crop_pct=prep.crop_pct,
    )
    picked = np.linspace(0, total - 1, count).astype(int)
    return np.stack([np.asarray(data.dataset[int(i)][0], dtype=np.float32) for i in picked])


def batches_on(loader: Any, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The loader's batches on `device`, whether or not timm's prefetcher moved them already."""
    for x, y in loader:
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def _with_repeats(loader: Any, data: ImageData, repeats: int) -> Any:
    """Repeated augmentation (Hoffer et al., arXiv:1901.09335) through timm's sampler, in one process too."""
    from timm.data.distributed_sampler import RepeatAugSampler

    base = loader.loader if hasattr(loader, "loader") else loader
    sampler = RepeatAugSampler(data.dataset, num_replicas=1, rank=0, num_repeats=repeats)
    repeated: DataLoader[Any] = DataLoader(
        data.dataset,
        batch_size=base.batch_size,
        sampler=sampler,
        num_workers=base.num_workers,
        collate_fn=base.collate_fn,
        worker_init_fn=base.worker_init_fn,
        drop_last=True,
    )
    if base is loader:
        return repeated
    loader.loader = repeated
    return loader
