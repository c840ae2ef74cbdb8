"""What every family's config shares, and the table of families.

A family is one module of this package that defines
- `Config`, a subclass of `ModelConfig` whose `family` is a Literal: the architecture as data;
- `build(config, pretrained_cfg, **kwargs)`, which returns a timm-style module (kwargs are timm's: `num_classes`,
  `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`, `features_only`, `out_indices`, ...);
- `from_official(state_dict, model)`, which renames an official state dict to the module's keys and returns any other
  dict unchanged.
"""

from types import ModuleType
from typing import Any, Self

from pydantic import Field

from mobilezoo.artifacts import Preprocessing
from mobilezoo.config import Record

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FAMILIES = {
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
    "supernet": "mobilezoo.search.supernet.model",
}
"""Family name → module, imported when first used."""


class Published(Record):
    """What the authors report for their own weights."""

    top1: float | None = None
    """ImageNet-1k top-1 in percent, trained without a teacher."""
    top1_distilled: float | None = None
    epochs: int | None = None
    source: str
    licence: str
    """Licence of the official weights; "none stated" where there is none."""


class ModelConfig(Record):
    """A network as data. The file name is the model's name."""

    family: str
    name: str = Field(default="", description="taken from the file name; never written in a YAML")
    resolution: int = Field(gt=0, description="height and width in pixels the network is defined at")
    aliases: tuple[str, ...] = Field(default=(), description="official names of the same network")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = Field(default=0.875, gt=0, le=1)
    published: Published | None = None

    def preprocessing(self) -> Preprocessing:
        return Preprocessing(mean=self.mean, std=self.std, interpolation=self.interpolation, crop_pct=self.crop_pct)

    def built_for(self, resolution: int) -> Self:
        """The config to build from for inputs of this size: itself, for networks that take any."""
        return self

    def pretrained_cfg(self, **extra: Any) -> dict[str, Any]:
        """timm's pretrained_cfg for this network; families add `first_conv` and `classifier`."""
        return {
            "url": "",
            "architecture": self.name,
            "num_classes": 1000,
            "input_size": (3, self.resolution, self.resolution),
            "pool_size": None,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            **extra,
        }


def family_module(family: str) -> ModuleType:
    """Import a family's module. Raises UnknownNameError."""
    import importlib

    from mobilezoo.errors import UnknownNameError

    if family not in FAMILIES:
        raise UnknownNameError("family", family, FAMILIES)
    return importlib.import_module(FAMILIES[family])
