"""What every family's config shares, and the table of families.

A family is one module, of this package or a plugin's, that defines
- `Config`, a subclass of `ModelConfig` whose `family` is a Literal: the architecture as data;
- `build(config, pretrained_cfg, **kwargs)`, which returns a timm-style module (kwargs are timm's: `num_classes`,
  `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`, `features_only`, `out_indices`, ...);
- `from_official(state_dict, model)`, which renames an official state dict to the module's keys and returns any other
  dict unchanged.
"""

from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mobilezoo.config import Record
from mobilezoo.models.weight_file import Tag, WeightFile
from mobilezoo.preprocessing import (
    ChannelValues,
    CropMode,
    CropShare,
    Interpolation,
    Preprocessing,
    check_statistics,
)
from mobilezoo.registry import Registry
from mobilezoo.resolution import Resolution, Size

TIMM = "timm:"
"""Prefix of the names of timm's own networks."""
FREE = ("aliases", "published", "weights")
"""Keys of a model YAML that say nothing about the network."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _is_family(found: Any) -> bool:
    config = getattr(found, "Config", None)
    parts = isinstance(config, type) and issubclass(config, ModelConfig) and callable(getattr(found, "build", None))
    return parts and callable(getattr(found, "from_official", None))


FAMILIES: Registry[Any] = Registry(
    "family",
    "families",
    {
        "timm": "mobilezoo.models.timm_network",
        "mbconv": "mobilezoo.models.mbconv",
        "ghostnet": "mobilezoo.models.ghostnet",
        "shvit": "mobilezoo.models.shvit",
        "cas_vit": "mobilezoo.models.cas_vit",
        "emov2": "mobilezoo.models.emov2",
        "mobilemamba": "mobilezoo.models.mobilemamba",
        "mobilenext": "mobilezoo.models.mobilenext",
        "efficientmod": "mobilezoo.models.efficientmod",
        "ffnet": "mobilezoo.models.ffnet",
        "care": "mobilezoo.models.care",
        "smt": "mobilezoo.models.smt",
        "focalnet": "mobilezoo.models.focalnet",
        "ravlt": "mobilezoo.models.ravlt",
        "moat": "mobilezoo.models.moat",
        "affnet": "mobilezoo.models.affnet",
        "agent": "mobilezoo.models.agent",
        "inline": "mobilezoo.models.inline",
        "nat": "mobilezoo.models.nat",
        "illama": "mobilezoo.models.illama",
        "favit": "mobilezoo.models.favit",
        "moh": "mobilezoo.models.moh",
        "halonet": "mobilezoo.models.halonet",
        "fastvit": "mobilezoo.models.fastvit",
        "davit": "mobilezoo.models.davit",
        "iformer": "mobilezoo.models.iformer",
        "dsm": "mobilezoo.models.dsm",
        "lightnet": "mobilezoo.models.lightnet",
        "loope": "mobilezoo.models.loope",
    },
    _is_family,
    "Config (a ModelConfig), build and from_official",
)
"""Family name → the module or object that holds `Config`, `build` and `from_official`."""


class Published(Record):
    """What the authors report for their own weights."""

    top1: float | None = None
    """ImageNet-1k top-1 in percent, trained without a teacher."""
    top1_distilled: float | None = None
    """The same with a teacher."""
    epochs: int | None = None
    """Epochs of that training."""
    source: str
    """Table or file that states it."""
    license: str
    """License of the official weights; "none stated" where there is none."""


class ModelConfig(Record):
    """A network as data. The file name is the model's name."""

    family: str
    name: str = Field(default="", description="taken from the file name; never written in a YAML")
    resolution: Resolution = Field(description="input the network is defined at: 224, or 192x256 (height x width)")
    aliases: tuple[str, ...] = Field(default=(), description="official names of the same network")
    mean: ChannelValues = Field(default=IMAGENET_MEAN, description="of the channels, pixels scaled to 0..1")
    std: ChannelValues = Field(default=IMAGENET_STD, description="standard deviations of the channels")
    interpolation: Interpolation = "bicubic"
    crop_pct: CropShare = Field(default=0.875, description="cut-out over resized image, as lengths")
    crop_mode: CropMode = Field(default="center", description="how an image of another aspect ratio is fitted")
    published: Published | None = None
    weights: dict[Tag, WeightFile] = Field(
        default={}, description="files of trained weights by tag; the first one is what pretrained=True takes"
    )

    @model_validator(mode="after")
    def _normalizes(self) -> Self:
        check_statistics(self.mean, self.std)
        return self

    def preprocessing(self, channels: int = 3) -> Preprocessing:
        """How images become this network's input."""
        return Preprocessing(**{key: getattr(self, key) for key in Preprocessing.model_fields}).for_channels(channels)

    def built_for(self, resolution: Size) -> Self:
        """The config to build from for inputs of this size: itself, for networks that take any."""
        return self

    def plain(self) -> dict[str, Any]:
        """The data of its YAML, without what is published of its weights."""
        return self.model_dump(mode="json", exclude={"name", *FREE}, exclude_defaults=True)

    def pretrained_cfg(self, **extra: Any) -> dict[str, Any]:
        """timm's pretrained_cfg for this network; families add `first_conv` and `classifier`."""
        return {
            "url": "",
            "architecture": self.name,
            "num_classes": 1000,
            "input_size": (3, *self.resolution),
            "pool_size": None,
            **self.preprocessing().to_timm(),
            **extra,
        }


def one_per_stage(*fields: str, like: str = "widths") -> Any:
    """Validator for a family's config: tuples of as many values as there are stages.

    Args:
        fields: names of the tuples.
        like: name of the tuple that sets the number, declared before them.
    """

    def check(value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        if len(value) != len(info.data.get(like, value)):
            raise ValueError(f"one value per stage, {len(info.data[like])} as in {like}")
        return value

    return field_validator(*fields)(check)


def family_module(family: str) -> Any:
    """The module (or object) of a family. Raises UnknownNameError, or ConfigError for a plugin that cannot be used."""
    return FAMILIES.load(family)
