"""BatchNorm statistics of one network, estimated anew from training batches."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Set the running statistics to the plain mean over `batches` (x [B, C, H, W]); returns `network` in eval mode.

    Shared weights have no statistics of their own: each network shifts and scales its maps differently. All layers are
    estimated in one pass, in which each sees inputs normalized by the batch, as in training.
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
