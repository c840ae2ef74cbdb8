"""A network small enough that every converter takes seconds, with the parts that converters get wrong."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportResult, ExportSpec


class Tiny(nn.Module):
    """Strided convolution, BatchNorm, a depthwise one, fractional nearest upsampling, a gate, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 10)
        generator = torch.Generator().manual_seed(0)
        for tensor in (*self.parameters(), self.norm.running_mean):
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
        self.norm.weight.data.abs_().add_(0.5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        gate = torch.sigmoid(self.gate(F.avg_pool2d(x, 2)))
        x = self.depthwise(x) * F.interpolate(gate, size=x.shape[2:], mode="nearest")
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    return Tiny()


@pytest.fixture(scope="session")
def tiny_spec() -> ExportSpec:
    """14 px gives a 7 × 7 map, pooled to 3 × 3 and brought back to 7 × 7: the case that LiteRT rounds wrongly."""
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return ExportSpec(model="tiny", resolution=(14, 14), preprocessing=preprocessing, labels=tuple("abcdefghij"))


@pytest.fixture(scope="session")
def tiny_file(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportResult]:
    """Target → `tiny` as its fp32 file, made once for all tests, which leave it as it is."""

    @cache
    def made(target: str) -> ExportResult:
        (only,) = export_files(tiny, tiny_spec, [target], ["fp32"], tmp_path_factory.mktemp(target))
        assert only.status == "exported", only.reason
        return only

    return made
