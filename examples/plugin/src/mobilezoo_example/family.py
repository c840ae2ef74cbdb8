"""Plain convolutions: a stem of stride 2, then stages that halve the map; and an attention layer."""

from typing import Any, Literal

from pydantic import Field
from timm.layers import DropPath
from torch import Tensor, nn

from mobilezoo.layers.attention import create_attention
from mobilezoo.layers.head import NormHead
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates


class Config(ModelConfig):
    """A plain network as data."""

    family: Literal["plain"]
    widths: tuple[int, ...] = Field(min_length=1, description="output channels of each stage")
    attention: str = Field(default="none", description="attention layer behind every stage")


class Brightness(nn.Conv2d):
    """x * sigmoid(w * mean(x) + b), one weight and bias per channel. [B, C, H, W] → [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x.mean((2, 3), keepdim=True)).sigmoid()


class Residual(nn.Module):
    """3×3 convolution, attention and a shortcut."""

    def __init__(self, width: int, attention: str, drop_path: float) -> None:
        super().__init__()
        self.conv = _conv(width, width, 1)
        self.attention, self.drop_path = create_attention(attention, width), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.attention(self.conv(x)))


class PlainNet(StagedNet):
    def __init__(
        self, cfg: Config, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
        drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:  # fmt: skip
        rates = drop_path_rates(drop_path_rate, (1,) * len(cfg.widths))
        ins = (8, *cfg.widths)
        stages = [
            Stage([Residual(out, cfg.attention, rate)], _conv(before, out, 2))
            for before, out, (rate,) in zip(ins, cfg.widths, rates, strict=False)
        ]
        head = NormHead(ins[-1], num_classes, nn.Identity(), global_pool, drop_rate)
        super().__init__(_conv(in_chans, 8, 2), stages, head, cfg.widths, stride=4)


def build(config: Config, **kwargs: Any) -> nn.Module:
    return build_staged(PlainNet, config, len(config.widths), first_conv="stem.0", **kwargs)


def from_official(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """There are no official weights to rename."""
    return state_dict


def _conv(in_chs: int, out_chs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_chs, out_chs, 3, stride, 1, bias=False), nn.BatchNorm2d(out_chs), nn.ReLU(inplace=True)
    )
