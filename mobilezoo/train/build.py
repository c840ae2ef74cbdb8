"""Builds the parts of a run from its config: device, network, optimizer, schedule, losses, mixup, averaging."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mobilezoo.data.config import DataConfig
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.train.config import Optimizer, TrainConfig, TrainSettings

FUSED = ("adam", "adamw", "sgd", "momentum")
"""Of timm's names, those that are torch's own classes with a fused kernel on CPU, CUDA and MPS."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises MobilezooError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device={name!r} is no device: use auto, cpu, cuda, cuda:N or mps") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False):
        raise MobilezooError(f"train.device={name!r} is not available on this machine: set train.device=auto")
    return device


def build_network(config: TrainConfig, num_classes: int) -> nn.Module:
    """The network with a classifier for the data; weights from `config.checkpoint`, timm's pretrained ones, or random.

    Args:
        config: model, its arguments and where its weights come from.
        num_classes: outputs of the classifier.

    Returns:
        A network on the CPU, (B, C, H, W) images to (B, num_classes) logits; with `tune=probe` pooled by learned
        queries.

    Raises:
        ConfigError: timm refuses `model_args`, or the checkpoint does not fit (ClassCountError, CheckpointError).
    """
    from mobilezoo.models import create_model, load_model_config
    from mobilezoo.models.checkpoint import ClassCountError

    model = load_model_config(config.model)
    try:
        return create_model(
            model.built_for(config.train.resolution or model.resolution),
            checkpoint=config.checkpoint,
            checkpoint_key=config.checkpoint_key,
            pretrained=config.pretrained,
            num_classes=num_classes,
            reset_head=config.reset_head,
            probe_queries=config.probe_queries if config.tune == "probe" else 0,
            **config.model_args,
        )
    except ClassCountError as error:
        raise error.remedied("add reset_head=true for a new classifier") from None
    except (TypeError, AssertionError) as error:  # timm asserts arguments that it does not support
        raise ConfigError(f"model_args of {config.model!r}: {error}") from error


def build_optimizer(network: nn.Module, config: Optimizer, global_batch: int) -> torch.optim.Optimizer:
    """timm's optimizer over the network's parameters.

    Args:
        network: its biases and norms get no weight decay unless `config.decay_norms`.
        config: name, learning rate and decay.
        global_batch: images per step over all processes; the rate is multiplied by global_batch / `config.lr_batch`.

    Raises:
        UnknownNameError: timm has no optimizer of this name.
        ConfigError: the optimizer does not take `eps`, `betas` or `fused`.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    if config.name not in list_optimizers():
        from mobilezoo.errors import UnknownNameError

        raise UnknownNameError("optimizer", config.name, list_optimizers())
    lr = config.lr * (global_batch / config.lr_batch if config.lr_batch else 1.0)
    extra: dict[str, Any] = {k: getattr(config, k) for k in ("eps", "betas") if getattr(config, k) is not None}
    if config.fused or (config.fused is None and config.name in FUSED):
        extra["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            opt=config.name,
            lr=lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=not config.decay_norms,
            layer_decay=config.layer_decay,
            **extra,
        )
    except TypeError as error:
        raise ConfigError(f"train.optimizer.name={config.name!r} does not take {sorted(extra)}: {error}") from None
    return optimizer


def build_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, updates_per_epoch: int) -> Any:
    """timm's learning rate scheduler, stepped by update number.

    Args:
        optimizer: its rates are the peak of the schedule.
        settings: kind, warm-up and length of the schedule.
        updates_per_epoch: optimizer steps in one epoch.
    """
    from timm.scheduler import create_scheduler_v2

    schedule = settings.schedule
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=schedule.name,
        num_epochs=settings.epochs,
        warmup_epochs=schedule.warmup_epochs,
        warmup_lr=schedule.warmup_lr,
        min_lr=schedule.min_lr,
        cooldown_epochs=schedule.cooldown_epochs,
        decay_epochs=schedule.decay_epochs,
        decay_rate=schedule.decay_rate,
        noise=list(schedule.noise) if schedule.noise else None,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler


def build_mixup(data: DataConfig, settings: TrainSettings, num_classes: int) -> Any | None:
    """timm's Mixup over whole batches, or None where neither mixup nor CutMix is on.

    Args:
        data: strengths, probabilities and the batch size.
        settings: gives the label smoothing, which the mixed targets include.
        num_classes: width of the soft targets.

    Raises:
        ConfigError: the batch size is 1: there is no pair to mix.
    """
    from timm.data import Mixup

    augment = data.augment
    if augment.mixup == 0 and augment.cutmix == 0:
        return None
    if data.batch_size == 1:
        raise ConfigError("data.augment.mixup and .cutmix mix pairs of images: set data.batch_size to 2 or more")
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.mix_switch_prob,
        label_smoothing=settings.smoothing,
        num_classes=num_classes,
    )


def build_loss(settings: TrainSettings, mixed: bool) -> Loss:
    """Cross entropy, or binary cross entropy with one sigmoid per class (`train.loss=bce`).

    Args:
        settings: kind of loss and label smoothing.
        mixed: targets are distributions (B, K), already smoothed, instead of class indices (B,).
    """
    from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    if settings.loss == "bce":
        loss: Loss = BinaryCrossEntropy(smoothing=0.0 if mixed else settings.smoothing)
    elif mixed:
        loss = SoftTargetCrossEntropy()
    else:
        loss = LabelSmoothingCrossEntropy(settings.smoothing)
    return loss


def build_ema(network: nn.Module, settings: TrainSettings) -> Any | None:
    """Exponential moving average of the weights (timm's ModelEmaV3), or None where `train.ema` is not set.

    Args:
        network: copied as the first value of the average.
        settings: decay per update and its warm-up.
    """
    from timm.utils import ModelEmaV3

    if settings.ema is None:
        return None
    return ModelEmaV3(network, decay=settings.ema.decay, use_warmup=settings.ema.warmup)
