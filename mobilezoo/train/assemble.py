"""Builds the state of a run from its config, checked against the data, before anything is written."""

import random

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mobilezoo.data import ImageData, eval_loader, open_data, train_loader
from mobilezoo.data.classes import require_same_classes
from mobilezoo.data.samplers import Ranks
from mobilezoo.errors import DataError
from mobilezoo.models import load_model_config
from mobilezoo.models.fits import check_batch_of_one, check_input
from mobilezoo.models.probe import freeze_all_but_head
from mobilezoo.train import build
from mobilezoo.train.compile import prepare_forward
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.distributed import device_of, require_same_data
from mobilezoo.train.export_hooks import ExportHooks, fake_quantized
from mobilezoo.train.step import TrainState
from mobilezoo.train.weight_sharing import SharedWeights, check_weight_sharing


def assemble(config: TrainConfig, ranks: Ranks | None = None, export_hooks: ExportHooks | None = None) -> TrainState:
    """Open the data and build network, optimizer, schedule, losses and loaders. Raises MobilezooError."""
    ranks = ranks or Ranks()
    settings = config.train
    device = build.pick_device(device_of(settings.device, ranks))
    model_config = load_model_config(config.model)
    prep = model_config.preprocessing(config.in_chans)
    resolution = settings.resolution or model_config.resolution
    fit, held_out = open_data(config.data, train=True), open_data(config.data, train=False)
    _check_data(config, fit, held_out, device, ranks)
    classes = len(fit.labels)
    seed_all(settings.seed, 0)
    network = build.build_network(config, classes)
    if not isinstance(network, SharedWeights):
        check_input(network, config.model, (config.in_chans, *resolution))
        if config.data.batch_size == 1 and config.tune == "all" and not (settings.sync_bn and ranks.world > 1):
            for size in config.data.augment.sizes or (resolution,):
                check_batch_of_one(network, config.model, (config.in_chans, *size))
    network = network.to(device)
    check_weight_sharing(network, config, ranks)
    if config.tune != "all":
        freeze_all_but_head(network)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    global_batch = config.data.batch_size * settings.accumulate * ranks.world
    optimizer = build.build_optimizer(network, settings.optimizer, global_batch)
    train_batches = train_loader(config.data, fit, resolution, prep, device, settings.seed, ranks)
    mixup_fn = build.build_mixup(config.data, settings, classes)
    teacher = None
    if settings.distill is not None:
        from mobilezoo.train.distill import Teacher

        teacher = Teacher(settings.distill, classes, prep).to(device)
    quantized = (
        fake_quantized(network, config, resolution, device, ranks, export_hooks or ExportHooks())
        if settings.qat
        else None
    )
    return TrainState(
        device=device,
        resolution=resolution,
        prep=prep,
        labels=fit.labels,
        network=network,
        forward=quantized or prepare_forward(network, config, device, resolution, ranks),
        optimizer=optimizer,
        schedule=build.build_schedule(optimizer, settings, max(1, len(train_batches) // settings.accumulate)),
        mixup_fn=mixup_fn,
        loss=build.build_loss(settings, mixup_fn is not None).to(device),  # type: ignore[attr-defined]
        ema=build.build_ema(network, settings),
        teacher=teacher,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        train_batches=train_batches,
        val_batches=eval_loader(config.data, held_out, resolution, prep, device, ranks),
        bad_images=fit.bad_images,
        images=(_size(fit), _size(held_out)),
        cache=fit.cache,
        left_out=tuple(line for line in (fit.left_out, held_out.left_out) if line),
        quantized=quantized,
        ranks=ranks,
    )


def _check_data(config: TrainConfig, fit: ImageData, held_out: ImageData, device: torch.device, ranks: Ranks) -> None:
    """Raise MobilezooError where the splits, or the processes, do not see the same classes and enough images."""
    require_same_classes(fit.labels, held_out.labels, "training", "validation", "give both splits the same classes")
    sizes = [_size(fit), _size(held_out)]
    require_same_data(fit.labels, sizes, device, ranks)
    if sizes[1] is not None and sizes[1] < ranks.world:
        raise DataError(f"{sizes[1]} validation images are too few for {ranks.world} processes: one each is needed")
    accumulate, batch = config.train.accumulate, config.data.batch_size * ranks.world
    if sizes[0] is not None and batch <= sizes[0] < batch * accumulate:
        raise DataError(
            f"{sizes[0]} training images are fewer than one update of {accumulate} batches of {batch}: "
            f"set train.accumulate to at most {sizes[0] // batch}"
        )


def _size(data: ImageData) -> int | None:
    """Images of a split; None for streams, which do not know."""
    return None if isinstance(data.dataset, IterableDataset) else len(data.dataset)


def seed_all(seed: int, moment: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's global generators for one moment of one process."""
    value = seed * 1_000_003 + moment + rank * 7_919_000_003
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def global_batch(config: TrainConfig, state: TrainState) -> int:
    """Images per update, over all processes."""
    return config.data.batch_size * config.train.accumulate * state.ranks.world


def updates_per_epoch(config: TrainConfig, state: TrainState) -> int:
    """Optimizer steps in one epoch."""
    return max(1, len(state.train_batches) // config.train.accumulate)
