"""What the pixels of a file mean: every mode an image can have → 8-bit RGB, grey or RGBA; or a refusal that names it.

The one place where image files are opened. Training, evaluation, small copies and `data check` all come through here.
"""

import functools
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from mobilezoo.data.names import FORMATS
from mobilezoo.errors import ConfigError

BAD_IMAGE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What reading raises for files that are no image, damaged ones, and modes that nobody can read right."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what brings the image upright. PIL turns TIFFs itself when it loads them."""
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels of a network's input → mode of the images it gets."""
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


class Pixels(NamedTuple):
    """How people want images read: `data.exif` and `data.background`, and the channels of the network."""

    exif: bool = True
    background: tuple[int, int, int] = (255, 255, 255)
    channels: int = 3

    def read(self, source: BinaryIO | Path) -> Image.Image:
        """Open, decode and convert the first frame of a file. Raises what PIL raises, and ValueError."""
        with Image.open(source, formats=readable_formats()) as image:
            return self.convert(image)

    def convert(self, image: Image.Image) -> Image.Image:
        """An opened image as `channels` channels of 8 bits. Raises ValueError for modes that nobody can read right."""
        image.load()
        turn = TURNS.get(orientation(image)) if self.exif else None
        image = _flat(image)
        if has_alpha(image):
            image = image.convert("RGBA")
            image = image if self.channels == 4 else self._on_background(image)
        for mode in ("RGB", CHANNELS[self.channels]):  # PIL converts every mode to RGB, not to grey
            image = image if image.mode in (mode, CHANNELS[self.channels]) else image.convert(mode)
        return image if turn is None else image.transpose(turn)

    def _on_background(self, image: Image.Image) -> Image.Image:
        if image.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        below = Image.new("RGBA", image.size, (*self.background, 255))
        return Image.alpha_composite(below, image).convert("RGB")


def color_of(name: str) -> tuple[int, int, int]:
    """`white` or `#ff8000` → red, green, blue in 0..255. Raises ConfigError."""
    try:
        red, green, blue = ImageColor.getcolor(name, "RGB")  # type: ignore[misc]
    except ValueError:
        raise ConfigError(f"data.background={name!r} is no color: take a name such as white, or #rrggbb") from None
    return red, green, blue


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """The formats of `FORMATS` that this PIL was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 (upright) where there is none, or where the metadata is damaged."""
    try:
        with warnings.catch_warnings(action="ignore"):
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # PIL raises whatever a damaged block leads to; the pixels are not concerned
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA or image.has_transparency_data


def _flat(image: Image.Image) -> Image.Image:
    """Deep and uncommon modes as 8-bit ones."""
    if image.mode in DEEP_GREY or (image.mode == "I" and image.format == "PPM"):  # PIL scales PGMs to 16 bits
        return _from_16_bit(image)
    if image.mode == "F":
        return _from_float(image)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode == "I":
        raise ValueError("32-bit or signed integers, which have no white of their own: save it with 8 or 16 bits")
    if image.mode == "La":
        return image.convert("LA")
    if image.mode not in (*PLAIN, *ALPHA):
        raise ValueError(f"pixels of PIL's mode {image.mode!r}, which is not read here: save it as RGB")
    return image


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    key = image.info.get("transparency")
    if _white_is_zero(image):
        values = 65535 - values
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _white_is_zero(image: Image.Image) -> bool:
    """TIFF's PhotometricInterpretation 0, which PIL heeds for 8 bits only."""
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise ValueError(f"floats from {low:g} to {high:g}: only 0..1 is known to mean black..white; save it in 8 bits")
    return Image.fromarray((values * 255 + 0.5).astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, to_srgb)
    assert converted is not None
    return converted
