"""Dynamic Spectrum Mixer: a pyramid whose blocks mix positions by a cosine transform with bands weighted per image.

Paper: "Dynamic Spectrum Mixer for Visual Recognition", arXiv:2309.06721. From the paper's text, no official weights or
code to compare with. What is known of it is the mixing in the frequency domain and the generated weights of bands (see
`layers/spectrum_mixer.py`); the plan is ours: four stages of pre-norm blocks with MLPs, a depthwise 3×3 convolution in
front of both for what is local, widths for phones.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.mlp import MapMlp
from mobilezoo.layers.size import check_input_size
from mobilezoo.layers.spectrum_mixer import REDUCTION, SpectrumMixer
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_STRIDE, NORM_EPS = 4, 1e-5


class Config(ModelConfig):
    """A Dynamic Spectrum Mixer as data."""

    family: Literal["dsm"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage, multiples of 4")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    mlp_ratio: int = Field(default=4, gt=0, description="hidden width of MLPs over the block's")

    @field_validator("widths")
    @classmethod
    def _have_parts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for width in value:
            if width < REDUCTION or width % REDUCTION:
                raise ValueError(f"{width} channels are no multiple of {REDUCTION}")
        return value

    @field_validator("depths")
    @classmethod
    def _one_per_stage(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(value) != len(info.data.get("widths", value)):
            raise ValueError(f"one value per stage, {len(info.data['widths'])} as in widths")
        return value


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chs, out_chs // 2, 3, stride=2)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(out_chs // 2, out_chs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.conv2(self.act(self.conv1(x)))


class Local(nn.Module):
    """Identity + depthwise 3×3."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Block(nn.Module):
    """Local convolution, then pre-norm spectrum mixing and MLP."""

    def __init__(self, dim: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.local = Local(dim)
        self.norm1 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mix = SpectrumMixer(dim)
        self.norm2 = LayerNorm2d(dim, eps=NORM_EPS)
        self.mlp = MapMlp(dim, mlp_ratio * dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(x)
        x = x + self.drop_path(self.mix(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SpectrumNet(StagedNet):
    """A Dynamic Spectrum Mixer for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages = []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            down = ConvNorm(cfg.widths[i - 1], cfg.widths[i], 3, stride=2) if i > 0 else None
            stages.append(Stage([Block(cfg.widths[i], cfg.mlp_ratio, rate) for rate in rates], down))
        width = cfg.widths[-1]
        super().__init__(
            Stem(in_chans, cfg.widths[0]),
            stages,
            NormHead(width, num_classes, LayerNorm2d(width, eps=NORM_EPS), global_pool, drop_rate),
            widths=cfg.widths,
            stride=STEM_STRIDE,
        )


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Dynamic Spectrum Mixer; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(SpectrumNet, config, len(config.depths), first_conv="stem.conv1.conv", **kwargs)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors unchanged: there are no official files.

    Args:
        state_dict: tensors by the network's own names.
        model: network that the weights are for.
    """
    return dict(state_dict)
