"""Prepares the forward call: activation checkpointing, torch.compile, DistributedDataParallel, faster ReLU6 on CPU."""

import sys
from typing import Any

import torch
from torch import nn

from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError, first_line
from mobilezoo.memory import peak_resident_mb
from mobilezoo.resolution import Size
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.distill import as_student


def prepare_forward(
    network: nn.Module, config: TrainConfig, device: torch.device, resolution: Size, distributed: Distributed
) -> Any:
    """The callable that the training loop uses in place of `network`; both share their parameters.

    Args:
        network: in eval or train mode, on `device`; changed in place by activation checkpointing and faster ReLU6.
        config: which of these steps are on.
        device: where the network is.
        resolution: (height, width) of the batch that a compiled network is tried with.
        distributed: with several processes the result averages gradients over them.

    Raises:
        ConfigError: the network cannot recompute activations, or `sync_bn` is set without GPUs or several processes.
    """
    settings = config.train
    if settings.checkpoint_activations:
        _checkpoint_activations(network, config.model)
    if device.type == "cpu" and not settings.compile:
        _quicken_relu6(network)
    forward: Any = as_student(network, settings.distill)
    if settings.compile or settings.cuda_graphs:
        forward = compiled_or_plain(forward, config, device, resolution)
    if distributed.world > 1:
        if settings.sync_bn:
            _sync_batch_norms(network, device)
        forward = nn.parallel.DistributedDataParallel(forward, device_ids=[device] if device.type == "cuda" else None)
    elif settings.sync_bn:
        raise ConfigError("train.sync_bn=true needs several processes: start with torchrun, or leave it out")
    return forward


def compiled_or_plain(network: nn.Module, config: TrainConfig, device: torch.device, resolution: Size) -> Any:
    """The network under torch.compile, tried forward and backward on a batch of zeros.

    Args:
        network: its weights and buffers are the same afterwards.
        config: batch size, channels and whether CUDA graphs are wanted.
        device: CUDA graphs need an NVIDIA GPU.
        resolution: (height, width) of the trial batch.

    Returns:
        The compiled network; the plain one, with a line on standard error, where compiling fails.
    """
    graphs = config.train.cuda_graphs
    if graphs and device.type != "cuda":
        print(f"CUDA graphs need an NVIDIA GPU, this is {device.type}: going on without them", file=sys.stderr)
        graphs = False
        if not config.train.compile:
            return network
    before = {k: v.clone() for k, v in network.state_dict().items()}
    compiled = torch.compile(network, mode="reduce-overhead" if graphs else None)
    x = torch.zeros(config.data.batch_size, config.in_chans, *resolution, device=device)
    if config.train.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    network.train()
    try:
        output = compiled(x)
        sum(part.sum() for part in (output if isinstance(output, tuple) else (output,))).backward()
    except Exception as error:  # compilers raise whatever their back end raises
        print(f"torch.compile failed ({first_line(error, 160)}): going on without it", file=sys.stderr)
        compiled = network
    network.zero_grad()
    network.load_state_dict(before)
    return compiled


class _ClampInPlace(torch.autograd.Function):
    """ReLU6 in place, forward and gradient equal to torch's bit for bit.

    torch's own in-place ReLU6 clamps into new memory and copies back, which costs a tenth of MobileNetV2's step on CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x.clamp_(0.0, 6.0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, 0.0, 6.0)
        return answer


def _relu6(x: torch.Tensor) -> torch.Tensor:
    if x.requires_grad and not x._is_view():
        y: torch.Tensor = _ClampInPlace.apply(x)
        return y
    return nn.functional.relu6(x, inplace=not x._is_view())


def _quicken_relu6(network: nn.Module) -> None:
    relu6: list[Any] = [module for module in network.modules() if isinstance(module, nn.ReLU6) and module.inplace]
    for module in relu6:
        module.forward = _relu6


def memory_mb(device: torch.device) -> float:
    """Peak memory in megabytes: the GPU's allocations, or what this process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_resident_mb()


def _checkpoint_activations(network: nn.Module, name: str) -> None:
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise ConfigError(f"{name!r} cannot recompute activations: leave train.checkpoint_activations out") from None


def _sync_batch_norms(network: nn.Module, device: torch.device) -> None:
    if device.type != "cuda":
        raise ConfigError("train.sync_bn=true needs GPUs: torch has no synchronized batch norm on CPU")
    for name, child in list(network.named_children()):
        setattr(network, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
