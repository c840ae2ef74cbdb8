"""What to train and evaluate on, and how images are varied."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mobilezoo.artifacts import Checkpoint
from mobilezoo.config import Record
from mobilezoo.resolution import Resolution

MOST_ALPHA = 1000
Area = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
POLICY = re.compile(
    r"rand(-(m\d{1,2}|n([1-9]|1[0-4])|p(0?\.\d+|1|1\.0)|mstd\d{1,3}(\.\d+)?|mmax\d{1,2}|inc[01]|t(weights|3aw?)))*"
    r"|augmix(-(m\d{1,2}|w[1-9]|d[1-9]|a([1-9]\d?|0?\.\d*[1-9]\d*)|b[01]|mstd\d{1,3}(\.\d+)?))*"
    r"|(originalr?|v0r?|3a)(-mstd\d{1,3}(\.\d+)?)?"
)
"""What timm's policies are written like, with values that its transforms can apply."""


class Augment(Record):
    """Training-time variation; names and meaning follow timm's `create_transform`, `Mixup` and loader."""

    scale: tuple[Area, Area] = Field(default=(0.08, 1.0), description="area of the random crop, share of the image")
    ratio: tuple[Ratio, Ratio] = Field(default=(0.75, 1.3333333333333333), description="aspect ratio of the crop")
    hflip: float = Field(default=0.5, ge=0, le=1, description="probability of a horizontal flip")
    color_jitter: float = Field(
        default=0.4, ge=0, le=10, description="brightness, contrast, saturation; unused with RandAugment"
    )
    auto_augment: str | None = Field(default=None, description="timm policy, for example rand-m9-mstd0.5-inc1")
    interpolation: Literal["random", "bilinear", "bicubic", "nearest", "box", "hamming", "lanczos"] = Field(
        default="random", description="of the resize to the crop; random: bilinear or bicubic per image"
    )
    random_erasing: float = Field(default=0.0, ge=0, le=1, description="probability per image")
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    mixup: float = Field(default=0.0, ge=0, le=MOST_ALPHA, description="alpha of mixup; 0 turns it off")
    cutmix: float = Field(default=0.0, ge=0, le=MOST_ALPHA, description="alpha of CutMix; 0 turns it off")
    mix_prob: float = Field(default=1.0, ge=0, le=1, description="probability that a batch is mixed at all")
    mix_switch_prob: float = Field(default=0.5, ge=0, le=1, description="probability of CutMix where both are on")
    repeats: int = Field(
        default=0, ge=0, le=1000, description="repeated augmentation: views of an image per epoch; 0 is off"
    )
    sizes: tuple[Resolution, ...] = Field(
        default=(),
        max_length=64,
        description="multi-scale training: input sizes (224 or 192x256, height x width), one per batch",
    )

    @field_validator("auto_augment")
    @classmethod
    def _is_policy(cls, value: str | None) -> str | None:
        if value and not POLICY.fullmatch(value):
            raise ValueError(
                "one of timm's policies, such as rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original, originalr, v0, v0r "
                "or 3a, or null"
            )
        return value

    @model_validator(mode="after")
    def _are_ranges(self) -> Self:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} with the smaller number first, got [{low:g}, {high:g}]")
        return self


class DataConfig(Record):
    """A dataset by name, its splits and its loader."""

    source: str = Field(description="digits, folder:PATH, tar:PATH, or a name timm reads: hfds/…, wds/…, torch/…")
    root: str | None = Field(default=None, description="cache or data folder of hfds/wds/tfds/torch sources")
    train_split: str = Field(default="train", description="split or subfolder that is learned from")
    val_split: str = Field(default="validation", description="split or subfolder that is scored")
    num_classes: int | None = Field(
        default=None, gt=0, le=1 << 20, description="needed where the source has no class names"
    )
    batch_size: int = Field(default=128, gt=0, le=1 << 16, description="images per step and process")
    workers: int = Field(default=2, ge=0, le=1024, description="loader processes; 0 loads in the training process")
    decoder: Literal["pil", "wheels", "region"] = Field(
        default="pil",
        description="JPEG folders, training: wheels = simplejpeg + OpenCV; region = only the crop, compiled on demand",
    )
    cache: str | None = Field(
        default=None, description="folder for small copies (short side 256 px) of folder:PATH training images"
    )
    exif: bool = Field(default=True, description="turn photographs upright as their EXIF orientation says")
    background: str = Field(default="white", description="color behind transparent pixels: a name or #rrggbb")
    on_bad_image: Literal["stop", "skip"] = Field(default="stop", description="what to do with unreadable images")
    preview: int = Field(
        default=0,
        ge=0,
        le=64,
        description="images after augmentation that are kept for the report, with the balance of classes; 0: neither",
    )
    augment: Augment = Augment()

    def located(self) -> "DataConfig":
        """The same with absolute paths, so that it means the same in every working folder."""
        kind, colon, place = self.source.partition(":")
        source = f"{kind}:{_absolute(place)}" if colon and kind in ("folder", "tar") else self.source
        # The root of shards may be an address or a command: those have a colon.
        root = _absolute(self.root) if self.root and ":" not in self.root else self.root
        return self.model_copy(
            update={"source": source, "root": root, "cache": _absolute(self.cache) if self.cache else self.cache}
        )

    @field_validator("background")
    @classmethod
    def _is_color(cls, value: str) -> str:
        from mobilezoo.data.pixels import color_of

        color_of(value)
        return value


def recorded_data(record: Checkpoint) -> DataConfig | None:
    """The data that weights were trained with. Raises ConfigError where the record does not hold it rightly."""
    return None if record.data is None else DataConfig.parse(record.data, f"data in the record of {record.path}")


def named_data(source: str, recorded: DataConfig | None) -> DataConfig:
    """Data given by its source alone; splits and all else are as in training, where that is recorded.

    Args:
        source: value of --data, as `data.source` of a config.
        recorded: the data that the network was trained with, or None.
    """
    return recorded.model_copy(update={"source": source}) if recorded else DataConfig(source=source)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
