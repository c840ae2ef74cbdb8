"""Networks that take pixels and give probabilities; apart from `app`, which runners load without torch."""

from typing import Any

import torch
from torch import Tensor, nn

from mobilezoo_export.app import pixel_scale
from mobilezoo_export.contract import ExportSpec


class AppModel(nn.Module):
    """A network that takes pixel values 0..255 as floats, gives probabilities, or both, as the options say."""

    scale: Tensor | None
    shift: Tensor

    def __init__(self, network: nn.Module, spec: ExportSpec) -> None:
        super().__init__()
        self.network = network
        self.probabilities = spec.options.softmax
        scale, shift = pixel_scale(spec.preprocessing, spec.in_chans)
        self.register_buffer("scale", torch.from_numpy(scale) if spec.options.image else None)
        self.register_buffer("shift", torch.from_numpy(shift))
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            x = x * self.scale + self.shift
        logits: Tensor = self.network(x)
        return logits.softmax(-1) if self.probabilities else logits


class FromBytes(nn.Module):
    """A network behind a cast from uint8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False

    def forward(self, image: Tensor) -> Any:
        return self.network(image.to(torch.float32))
