"""What XNNPACK's quantizer is made to do: a ReLU6 belongs to its convolution, also in training."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("executorch", reason="needs the extra executorch")


class Clamped(nn.Module):
    """Two convolutions, each with a norm and a ReLU6; what goes into the ReLU6 reaches far beyond 0 to 6."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(True)
        )
        for norm in (self.layers[1], self.layers[4]):
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.constant_(norm.weight, 20.0)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(x_bchw)
        return answer


def _clamp_scales(graph: Any) -> list[float]:
    """Scales of what clamps let through; fails where anything is quantized before them."""
    scales = []
    for node in graph.graph.nodes:
        if "hardtanh" in str(node.target):
            assert "quantize" not in str(node.args[0].target), "quantized between convolution and ReLU6"
            (quantized,) = node.users
            scales.append(float(quantized.args[1]))
    return scales


def test_the_scale_of_a_relu6_is_spent_on_what_it_lets_through() -> None:
    from mobilezoo_export.quantize.executorch import to_int8

    network, images = Clamped().eval(), torch.randn(8, 3, 8, 8)
    layers: Any = network.layers
    fused = nn.Sequential(
        *(part for at in (0, 3) for part in (nn.utils.fuse_conv_bn_eval(layers[at], layers[at + 1]), layers[at + 2]))
    )
    graph = to_int8(fused, images[:1], [images.numpy()])
    assert _clamp_scales(graph) == pytest.approx([6 / 255] * 2, rel=1e-3)
    with torch.no_grad():
        error = np.abs(graph(images).numpy() - network(images).numpy())
    assert float(error.mean()) < 0.05


@pytest.mark.slow
def test_training_for_int8_learns_the_same_ranges() -> None:
    from mobilezoo_export.quantize.qat import FakeQuantized

    trained = FakeQuantized(Clamped(), torch.randn(2, 3, 8, 8))
    trained.train()(torch.randn(8, 3, 8, 8))
    scales = _clamp_scales(trained.converted())
    assert len(scales) == 2
    assert max(scales) <= 6 / 255 * 1.001
