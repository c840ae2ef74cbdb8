"""Preprocessing of images as a record, converted from and to timm's data config."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.resolution import Size

COLORS = {
    1: "grey (ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B)",
    3: "RGB",
    4: "RGBA (alpha 255 where the image has none)",
}
"""Number of channels → color mode that images are converted to."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CropMode = Literal["center", "squash", "border"]
"""center: the aspect ratio stays, edges are cut off; squash: it does not stay; border: it stays, the rest is padded."""
CropShare = Annotated[float, Field(gt=0.1, le=4)]
"""Ratio of the crop's side to the resized image's; above 1 the crop is larger and padded."""
ChannelValues = Annotated[tuple[float, ...], Field(min_length=1)]


class Preprocessing(Record):
    """Image to model input: resize, crop, scale to 0..1, then (x - mean) / std per channel."""

    mean: ChannelValues
    std: ChannelValues
    interpolation: Interpolation = "bicubic"
    crop_pct: CropShare = 0.875
    crop_mode: CropMode = "center"

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        check_statistics(self.mean, self.std)
        return self

    @classmethod
    def from_timm(cls, config: Mapping[str, Any], channels: int | None = None) -> Self:
        """Reads a `pretrained_cfg` or a resolved data config of timm.

        Args:
            config: timm's keys; missing ones have timm's defaults.
            channels: channels of the network's input; None takes those of `input_size`.

        Raises:
            ConfigError: a value has no meaning in timm.
        """
        from timm.data import resolve_data_config

        own = resolve_data_config(pretrained_cfg={"input_size": (3, 224, 224), **config})
        read = cls.parse({key: own[key] for key in cls.model_fields}, "timm's data config")
        return read.for_channels(channels or own["input_size"][0])

    @property
    def channels(self) -> int:
        """Number of channels of the model input."""
        return len(self.mean)

    def to_timm(self) -> dict[str, Any]:
        """Returns the keys of timm's data config, for `create_transform` and `pretrained_cfg`."""
        return self.model_dump()

    def for_channels(self, channels: int) -> Self:
        """Adapts mean and std to other channels: grey, and each channel beyond the given ones, takes their average."""
        if channels == self.channels:
            return self
        mean, std = (_spread(values, channels) for values in (self.mean, self.std))
        return self.model_copy(update={"mean": mean, "std": std})

    def resized(self, size: Size) -> Size:
        """Returns the (height, width) that an image is resized or fitted to before `size`, its crop, is taken."""
        height, width = (math.floor(side / self.crop_pct) for side in size)
        return height, width

    def fitted(self, image: Size, size: Size) -> Size:
        """Returns the (height, width) that one image is resized to before its crop is taken.

        Args:
            image: its (height, width).
            size: (height, width) of the crop.
        """
        height, width = self.resized(size)
        if self.crop_mode == "squash":
            return height, width
        if self.crop_mode == "center" and height == width:
            short = min(image)
            return int(height * image[0] / short), int(width * image[1] / short)
        ratios = image[0] / height, image[1] / width
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return round(image[0] / ratio), round(image[1] / ratio)

    def rule(self, size: Size) -> str:
        """Describes resize and crop to `size` (height, width) in words and numbers, for developers of apps."""
        height, width = self.resized(size)
        cut = (
            f"cut {size[0]} rows and {size[1]} columns from the center: first row round((height - {size[0]}) / 2), "
            f"first column round((width - {size[1]}) / 2), halves to the even number"
        )
        if self.crop_mode == "squash":
            how, fill = f"resize to height {height}, width {width}, whatever the aspect ratio", "0"
        elif self.crop_mode == "border":
            how = f"resize by min({height} / height, {width} / width), sides rounded"
            fill = ", ".join(str(round(255 * value)) for value in self.mean)
        elif height == width:
            how, fill = f"resize the short side to {height}, the long one to floor({height} * long / short)", "0"
        else:
            how, fill = f"resize by max({height} / height, {width} / width), sides rounded", "0"
        return f"{how} ({self.interpolation}, antialiased); {cut}; pad what is smaller evenly with {fill}"


def check_statistics(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Checks that pixels can be normalized with mean and std.

    Args:
        mean: one value per channel.
        std: one value per channel.

    Raises:
        ValueError: their lengths differ, a value is not finite, or one of std is not positive.
    """
    if len(mean) != len(std):
        raise ValueError(f"as many values in mean as in std, got {len(mean)} and {len(std)}")
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ValueError("finite values in mean, and finite positive ones in std")


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    average = math.fsum(values) / len(values)
    kept = values if channels > len(values) > 1 else ()
    return (*kept, *([average] * (channels - len(kept))))
