"""A search space as one trainable network: the family `supernet`.

Training follows BigNAS (Yu et al., arXiv:2003.11142, section 3): sandwich rule, in-place distillation, one set of
weights that needs no further training, BatchNorm statistics estimated anew for each network. What differs: layers with
an unordered choice (block, attention) hold weights of their own, and are drawn in every network of the sandwich.

An extracted network is the zoo's ordinary one, and the supernet itself runs the same class with shared tensors in place
of its parameters, so that both compute the same by construction.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from mobilezoo.data.loaders import Batch
from mobilezoo.errors import MobilezooError
from mobilezoo.models import create_model
from mobilezoo.models.base import ModelConfig
from mobilezoo.search.networks import model_config
from mobilezoo.search.space import Point, Space
from mobilezoo.search.supernet.calibrate import recalibrate
from mobilezoo.search.supernet.sandwich import bound, sandwich
from mobilezoo.search.supernet.weights import SharedBank
from mobilezoo.train.weight_sharing import Score, SharedWeights


class Config(ModelConfig):
    """All networks of a space, with shared weights."""

    family: Literal["supernet"]
    space: Space
    random: int = Field(default=2, ge=0, description="networks per batch besides the largest and the smallest")
    calibration_batches: int = Field(default=8, gt=0, description="training batches that BatchNorm statistics are of")


class Supernet(SharedWeights):
    """Shared weights, and the networks that use parts of them."""

    def __init__(self, config: Config, num_classes: int = 1000, in_chans: int = 3, **kwargs: Any) -> None:
        """Creates the shared weights; `kwargs` are the networks' arguments: drop_rate, drop_path_rate."""
        super().__init__()
        self.config = config
        self.pretrained_cfg: dict[str, Any] = config.pretrained_cfg()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.kwargs = kwargs
        self.bank = SharedBank(config.space, num_classes, in_chans)

    def losses(self, x_bchw: Tensor, score: Score) -> Iterator[Tensor]:
        """Generates a loss per network of the sandwich, divided by their number.

        Args:
            x_bchw: training batch.
            score: the recipe's loss of logits [B, K] on the batch's targets, for the largest network.
        """
        # Drawn from torch's generator, which the trainer seeds before every update: a resumed run draws the same.
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        points = sandwich(self.config.space, self.config.random, rng)
        logits = self.logits(points[0], x_bchw)
        yield score(logits) / len(points)
        taught = logits.detach().softmax(dim=-1)
        for point in points[1:]:
            yield F.cross_entropy(self.logits(point, x_bchw), taught) / len(points)

    def logits(self, point: Point, x_bchw: Tensor) -> Tensor:
        """Computes the logits [B, K] of a network in training mode: its norms use the batch's statistics.

        Args:
            point: a point of the space.
            x_bchw: images; resized where the space has several resolutions.
        """
        network = self._fresh(point).to(x_bchw.device).train()
        if len(self.config.space.resolution) > 1 and x_bchw.shape[-1] != point.resolution:
            x_bchw = F.interpolate(x_bchw, size=point.resolution, mode="bilinear", antialias=True)
        logits: Tensor = functional_call(network, self._parts(network, point), (x_bchw,))
        return logits

    def extract(self, point: Point, name: str = "subnet") -> nn.Module:
        """Builds the zoo's network of a point with a copy of its shared weights, in eval mode.

        Args:
            point: a point of the space.
            name: name of the network.

        Returns:
            The network; its BatchNorm statistics are initial ones until `recalibrate`.
        """
        network = self._fresh(point, name)
        parts = {key: tensor.detach().clone() for key, tensor in self._parts(network, point).items()}
        network.load_state_dict({**network.state_dict(), **parts})
        return network.to(next(self.parameters()).device).eval()

    def scored(self, batches: Iterator[Batch]) -> nn.Module:
        """Extracts the largest network (first value of each unordered choice), recalibrated on some of `batches`."""
        point = self.config.space.point(bound(self.config.space, max))
        kept = islice(batches, self.config.calibration_batches)
        return recalibrate(self.extract(point), (x for x, _ in kept))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Computes the largest network's logits in training mode. Raises MobilezooError in eval mode."""
        if not self.training:
            raise MobilezooError(
                f"{self.config.name} is a supernet, which answers only as one of its networks: "
                "search with accuracy=supernet, which writes the best one"
            )
        return self.logits(self.config.space.point(bound(self.config.space, max)), x_bchw)

    def _fresh(self, point: Point, name: str = "subnet") -> nn.Module:
        """Builds the zoo's network of a point with new weights, without a change of torch's random state."""
        config = model_config(self.config.space, point, name)
        with torch.random.fork_rng(devices=[]):
            return create_model(config, num_classes=self.num_classes, in_chans=self.in_chans, **self.kwargs)

    def _parts(self, network: nn.Module, point: Point) -> dict[str, Tensor]:
        """Returns the network's parameters as views of the shared ones, by name."""
        return {name: self.bank.part(name, point.stages, own.shape) for name, own in network.named_parameters()}


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Builds a Supernet.

    Args:
        config: its model config.
        kwargs: timm's arguments of a model.

    Raises:
        MobilezooError: `features_only` is set, which a supernet does not have.
    """
    if kwargs.pop("features_only", False):
        raise MobilezooError(f"{config.name} is a supernet: it has no feature extractor")
    return Supernet(config, **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights unchanged: no other project has supernets of these spaces.

    Args:
        state_dict: weights.
        model: not used.
    """
    return dict(state_dict)


def supernet_config(space: Space, name: str, **settings: Any) -> Config:
    """Creates the model config of a space's supernet, with the preprocessing of its networks.

    Args:
        space: the space.
        name: name of the supernet.
        settings: further fields of the config: random, calibration_batches.
    """
    prep = {key: value for key, value in space.network.items() if key in ModelConfig.model_fields}
    data = {"family": "supernet", "name": name, "resolution": max(space.resolution), **prep, **settings}
    return Config.parse({**data, "space": space.model_dump(mode="json")}, name)
