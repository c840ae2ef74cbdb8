"""Builds the state of a run from its config, checked against the data, before anything is written."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import IterableDataset

from mobilezoo.data import ImageData, eval_loader, open_data, train_loader
from mobilezoo.data.classes import require_same_classes
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import DataError
from mobilezoo.models import load_model_config
from mobilezoo.models.fits import check_batch_of_one, check_input
from mobilezoo.models.probe import freeze_all_but_head
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size
from mobilezoo.train import build
from mobilezoo.train.compile import prepare_forward
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.distributed import device_of, require_same_data
from mobilezoo.train.export_hooks import ExportHooks, fake_quantized
from mobilezoo.train.step import TrainState
from mobilezoo.train.weight_sharing import SharedWeights, check_weight_sharing


def assemble(
    config: TrainConfig, distributed: Distributed | None = None, export_hooks: ExportHooks | None = None
) -> TrainState:
    """Open the data and build network, optimizer, schedule, losses and loaders; nothing is written.

    Args:
        config: the run, checked for its own consistency.
        distributed: this process among those that train together; None for a run of one process.
        export_hooks: supplies fake quantization where `train.qat` is set; None supplies nothing.

    Returns:
        The state before the first update, on its device, the generators seeded for update 0.

    Raises:
        MobilezooError: model, data, device and settings do not fit each other.
    """
    distributed = distributed or Distributed()
    settings = config.train
    device = build.pick_device(device_of(settings.device, distributed))
    model_config = load_model_config(config.model)
    prep = model_config.preprocessing(config.in_chans)
    resolution = settings.resolution or model_config.resolution
    # The data comes first: it gives the number of classes, and is the likeliest to be wrong.
    fit, held_out = open_data(config.data, train=True), open_data(config.data, train=False)
    _check_data(config, fit, held_out, device, distributed)
    # Every process draws the same random weights.
    seed_all(settings.seed, 0)
    network = _build_network(config, len(fit.labels), resolution, device, distributed)
    # The optimizer takes only parameters that learn: after freezing, and before anything wraps the network.
    images = config.data.batch_size * settings.accumulate * distributed.world
    optimizer = build.build_optimizer(network, settings.optimizer, images)
    train_batches = train_loader(config.data, fit, resolution, prep, device, settings.seed, distributed)
    mixup_fn = build.build_mixup(config.data, settings, len(fit.labels))
    teacher = _load_teacher(config, len(fit.labels), prep, device)
    # A fake-quantized graph replaces the forward call, so it is neither compiled nor joined with other processes.
    quantized = None
    if settings.qat:
        quantized = fake_quantized(network, config, resolution, device, distributed, export_hooks or ExportHooks())
    return TrainState(
        device=device,
        resolution=resolution,
        prep=prep,
        labels=fit.labels,
        network=network,
        forward=quantized or prepare_forward(network, config, device, resolution, distributed),
        optimizer=optimizer,
        schedule=build.build_schedule(optimizer, settings, max(1, len(train_batches) // settings.accumulate)),
        mixup_fn=mixup_fn,
        loss=build.build_loss(settings, mixup_fn is not None).to(device),  # type: ignore[attr-defined]
        ema=build.build_ema(network, settings),
        teacher=teacher,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        train_batches=train_batches,
        val_batches=eval_loader(config.data, held_out, resolution, prep, device, distributed),
        bad_images=fit.bad_images,
        images=(_size(fit), _size(held_out)),
        cache=fit.cache,
        left_out=tuple(line for line in (fit.left_out, held_out.left_out) if line),
        quantized=quantized,
        distributed=distributed,
    )


def _build_network(
    config: TrainConfig, classes: int, resolution: Size, device: torch.device, distributed: Distributed
) -> nn.Module:
    """The network on its device, what does not learn frozen. Raises MobilezooError where it cannot take the images."""
    network = build.build_network(config, classes)
    if not isinstance(network, SharedWeights):
        check_input(network, config.model, (config.in_chans, *resolution))
        # A batch norm has no statistics of one image's 1x1 map, unless several processes pool theirs.
        pooled = config.train.sync_bn and distributed.world > 1
        if config.data.batch_size == 1 and config.tune == "all" and not pooled:
            for size in config.data.augment.sizes or (resolution,):
                check_batch_of_one(network, config.model, (config.in_chans, *size))
    network = network.to(device)
    check_weight_sharing(network, config, distributed)
    if config.tune != "all":
        freeze_all_but_head(network)
    return network.to(memory_format=torch.channels_last) if config.train.channels_last else network


def _load_teacher(config: TrainConfig, classes: int, prep: Preprocessing, device: torch.device) -> nn.Module | None:
    """The frozen teacher of `train.distill`, if there is one."""
    if config.train.distill is None:
        return None
    from mobilezoo.train.distill import Teacher

    return Teacher(config.train.distill, classes, prep).to(device)


def _check_data(
    config: TrainConfig, fit: ImageData, held_out: ImageData, device: torch.device, distributed: Distributed
) -> None:
    """Raise MobilezooError where the splits, or the processes, do not see the same classes and enough images."""
    require_same_classes(fit.labels, held_out.labels, "training", "validation", "give both splits the same classes")
    sizes = [_size(fit), _size(held_out)]
    require_same_data(fit.labels, sizes, device, distributed)
    if sizes[1] is not None and sizes[1] < distributed.world:
        raise DataError(
            f"{sizes[1]} validation images are too few for {distributed.world} processes: one each is needed"
        )
    accumulate, batch = config.train.accumulate, config.data.batch_size * distributed.world
    if sizes[0] is not None and batch <= sizes[0] < batch * accumulate:
        raise DataError(
            f"{sizes[0]} training images are fewer than one update of {accumulate} batches of {batch}: "
            f"set train.accumulate to at most {sizes[0] // batch}"
        )


def _size(data: ImageData) -> int | None:
    """Images of a split; None for streams, whose length is not known."""
    return None if isinstance(data.dataset, IterableDataset) else len(data.dataset)


def seed_all(seed: int, moment: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    Args:
        seed: `train.seed` of the run.
        moment: number of the update, or of the epoch, that is about to begin.
        rank: number of this process, so that processes draw different numbers; 0 where they must draw the same.
    """
    value = seed * 1_000_003 + moment + rank * 7_919_000_003
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def global_batch(config: TrainConfig, state: TrainState) -> int:
    """Images per update, over all processes.

    Args:
        config: gives batch size and accumulation.
        state: gives the number of processes.
    """
    return config.data.batch_size * config.train.accumulate * state.distributed.world


def updates_per_epoch(config: TrainConfig, state: TrainState) -> int:
    """Optimizer steps in one epoch, at least 1; a last incomplete group of batches is left out.

    Args:
        config: gives the accumulated batches per step.
        state: gives the batches per epoch of this process.
    """
    return max(1, len(state.train_batches) // config.train.accumulate)
