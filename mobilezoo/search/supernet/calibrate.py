"""Recalibration of BatchNorm statistics from training batches."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Sets the running statistics of every BatchNorm to their plain mean over batches.

    Shared weights have no common statistics, since each network shifts and scales its maps differently. All layers are
    estimated in one pass, in which each normalizes by the batch, as in training.

    Args:
        network: changed in place.
        batches: inputs x [B, C, H, W].

    Returns:
        `network`, in eval mode.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.training = True
    for x in batches:
        network(x)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.training = False
    return network
