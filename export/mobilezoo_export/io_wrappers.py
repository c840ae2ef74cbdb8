"""Modules around a network: uint8 or pixel inputs, softmax outputs. Kept apart because runners load without torch."""

from typing import Any

import torch
from torch import Tensor, nn

from mobilezoo_export.pixels import pixel_scale
from mobilezoo_export.records import ExportSpec


class IOWrapper(nn.Module):
    """A network with the options `image` (input: pixel values 0..255 as float32) and `softmax` applied."""

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


class Uint8Input(nn.Module):
    """A network whose input is uint8, cast to float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False

    def forward(self, image: Tensor) -> Any:
        return self.network(image.to(torch.float32))
