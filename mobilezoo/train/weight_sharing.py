"""Contract between the trainer and a network whose weights many networks share (a supernet)."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from mobilezoo.data.loaders import Batch
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError
from mobilezoo.train.config import TrainConfig

Score = Callable[[torch.Tensor], torch.Tensor]
"""Logits [B, K] of one network → its loss against the batch's targets."""


class SharedWeights(nn.Module):
    """A network that learns from a batch in several passes, and names the one network by which a run is scored."""

    def losses(self, x_bchw: torch.Tensor, score: Score) -> Iterator[torch.Tensor]:
        """One scalar loss per pass; the trainer calls backward on each before it takes the next.

        Args:
            x_bchw: images of a micro-batch.
            score: logits (B, K) of one network to its loss.
        """
        raise NotImplementedError

    def scored(self, batches: Iterator[Batch]) -> nn.Module:
        """The network that the run's accuracy is stated for, in eval mode; `batches` are training batches."""
        raise NotImplementedError


def check_weight_sharing(network: nn.Module, config: TrainConfig, distributed: Distributed) -> None:
    """Raise ConfigError for settings that a network with shared weights cannot be trained with.

    Args:
        network: any network; only SharedWeights are checked.
        config: the run.
        distributed: must be one process for shared weights.
    """
    if not isinstance(network, SharedWeights):
        return
    settings = config.train
    refused = {
        f"tune={config.tune}": config.tune != "all",
        "several processes": distributed.world > 1,
        "train.compile=true": settings.compile,
        "train.qat=true": settings.qat,
        "train.distill.kind=feature": settings.distill is not None and settings.distill.kind not in ("soft", "hard"),
    }
    for what, used in refused.items():
        if used:
            raise ConfigError(f"a supernet is another network in every pass: it trains without {what}")
