"""What the trainer asks of a network whose weights many networks share (a supernet)."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from mobilezoo.data.loaders import Batch
from mobilezoo.data.samplers import Ranks
from mobilezoo.errors import ConfigError
from mobilezoo.train.config import TrainConfig

Score = Callable[[torch.Tensor], torch.Tensor]
"""Logits [B, K] of one network → its loss against the batch's targets."""


class SharedWeights(nn.Module):
    """Learns from a batch in several passes, and names the one network by which a run is scored."""

    def losses(self, x_bchw: torch.Tensor, score: Score) -> Iterator[torch.Tensor]:
        """One loss [scalar] per pass; the trainer takes each one's gradients before it asks for the next."""
        raise NotImplementedError

    def scored(self, batches: Iterator[Batch]) -> nn.Module:
        """The network that the run's accuracy is stated for, in eval mode; `batches` are training batches."""
        raise NotImplementedError


def check_weight_sharing(network: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
    """Raise ConfigError for what a network with shared weights cannot do in training."""
    if not isinstance(network, SharedWeights):
        return
    settings = config.train
    refused = {
        f"tune={config.tune}": config.tune != "all",
        "several processes": ranks.world > 1,
        "train.compile=true": settings.compile,
        "train.qat=true": settings.qat,
        "train.distill.kind=feature": settings.distill is not None and settings.distill.kind not in ("soft", "hard"),
    }
    for what, asked in refused.items():
        if asked:
            raise ConfigError(f"a supernet is another network in every pass: it trains without {what}")
