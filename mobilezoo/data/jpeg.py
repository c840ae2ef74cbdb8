"""The fast path for JPEG folders: timm's random crop and flip, decoded small, straight into uint8 NHWC batches.

Two decoders: `region` (compiled on demand, decodes only the crop, PIL's antialiasing) and `wheels` (simplejpeg and
OpenCV, decodes the image at a fitting eighth of its size; bilinear without antialiasing below a factor of two). The
crops are drawn by timm's own function from the same generator as on the ordinary path, so their statistics are equal.
"""

import io
import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.config import Augment
from mobilezoo.data.pixels import BAD_IMAGE, Pixels, orientation, readable_formats
from mobilezoo.data.samplers import Key, seeded, seeded_python
from mobilezoo.data.transforms import with_any_posterize
from mobilezoo.errors import ConfigError, DataError, require

Crop = tuple[int, int, int, int]
"""(top, left, height, width) in pixels of the whole image."""
INTERPOLATIONS = {"bilinear": (False,), "bicubic": (True,), "random": (False, True)}


class Decoder(Protocol):
    """A JPEG decoder that resizes a crop straight into a batch."""

    def size(self, data: bytes) -> tuple[int, int]:
        """(width, height) in pixels, without decoding. Raises DataError."""
        ...

    def decode(self, data: bytes, crop: Crop, flip: bool, bicubic: bool, out: np.ndarray) -> None:
        """Fill `out` with the resized crop. Raises DataError for a file that cannot be decoded.

        Args:
            data: the whole file.
            crop: (top, left, height, width) in pixels of the whole image.
            flip: mirror it left to right.
            bicubic: resize by bicubic interpolation, else bilinear.
            out: (H, W, 3) uint8, one image of a batch.
        """
        ...


class WheelsDecoder(Decoder):
    """simplejpeg (libjpeg-turbo) for a scaled decode, OpenCV for the resize."""

    def __init__(self) -> None:
        require("simplejpeg", "fast")
        require("cv2", "fast")
        import cv2  # type: ignore[import-not-found, unused-ignore]

        cv2.setNumThreads(1)  # loader processes are the parallelism
        self._room = np.empty(0, np.uint8)

    def size(self, data: bytes) -> tuple[int, int]:
        import simplejpeg  # type: ignore[import-not-found, unused-ignore]

        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise DataError(str(error)) from None
        return int(width), int(height)

    def decode(self, data: bytes, crop: Crop, flip: bool, bicubic: bool, out: np.ndarray) -> None:
        import cv2
        import simplejpeg

        width, height = self.size(data)
        if self._room.size < 3 * width * height:  # memory that is new for every image costs a tenth of its decoding
            self._room = np.empty(3 * width * height, np.uint8)
        top, left, tall, wide = crop
        shrink = 1
        while shrink < 8 and tall >= 2 * shrink * out.shape[0] and wide >= 2 * shrink * out.shape[1]:
            shrink *= 2
        least = {"min_height": height // shrink, "min_width": width // shrink} if shrink > 1 else {}
        try:
            image = simplejpeg.decode_jpeg(data, "RGB", buffer=self._room, **least)
        except ValueError as error:
            raise DataError(str(error)) from None
        sy, sx = image.shape[0] / height, image.shape[1] / width
        y, x = int(top * sy), int(left * sx)
        part = image[y : max(y + 1, round((top + tall) * sy)), x : max(x + 1, round((left + wide) * sx))]
        cv2.resize(part, out.shape[1::-1], dst=out, interpolation=cv2.INTER_CUBIC if bicubic else cv2.INTER_LINEAR)
        if flip:
            cv2.flip(out, 1, dst=out)


class JpegBatches(Dataset[Any]):
    """Whole batches by key from (path, class) pairs; a file the decoder refuses goes through PIL, as PNGs do."""

    def __init__(
        self,
        samples: list[tuple[str, int]],
        augment: Augment,
        decoder: Decoder,
        on_bad_image: str,
        bad_images: torch.Tensor,
        pixels: Pixels,
        cache: SmallCopies | None = None,
    ) -> None:
        self.samples, self.augment, self.decoder = samples, augment, decoder
        self.on_bad_image, self.bad_images, self.pixels, self.cache = on_bad_image, bad_images, pixels, cache
        self.vary = _variation(augment)
        self.bicubic = INTERPOLATIONS[augment.interpolation]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: list[Key]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [B, H, W, 3] uint8 and classes [B] int64."""
        batch = _room_for((len(keys), *keys[0].size, 3))
        places = batch.numpy()
        classes = [self._fill(key, places[i]) for i, key in enumerate(keys)]
        return batch, torch.tensor(classes, dtype=torch.int64)

    def _fill(self, key: Key, out: np.ndarray) -> int:
        """Decode one image, or the next readable one, into `out`; returns its class."""
        for step in range(len(self.samples)):
            path, target = self.samples[(key.image + step) % len(self.samples)]
            try:
                with seeded(key.seed) if self.vary is not None else seeded_python(key.seed):
                    self._decode(Path(self.cache(path) if self.cache else path), out)
                    if self.vary is not None:
                        out[:] = np.asarray(self.vary(Image.fromarray(out)))
                return target
            except (*BAD_IMAGE, DataError) as error:
                if self.on_bad_image == "stop":
                    raise DataError(
                        f"unreadable image {path!r} ({error}): remove it, or set data.on_bad_image=skip"
                    ) from None
                self.bad_images += 1
        raise DataError(f"no readable image among {len(self.samples)} files")

    def _decode(self, path: Path, out: np.ndarray) -> None:
        data = path.read_bytes()
        if data[:2] == b"\xff\xd8" and not (self.pixels.exif and _is_turned(data)):
            with suppress(DataError):  # PIL reads more color spaces, and is the judge of damage
                crop, flip, bicubic = self._draw(self.decoder.size(data))
                self.decoder.decode(data, crop, flip, bicubic, out)
                return
        image = self.pixels.read(io.BytesIO(data))
        (top, left, height, width), flip, bicubic = self._draw(image.size)
        box = (left, top, left + width, top + height)
        filtered = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        pixels = np.asarray(image.crop(box).resize(out.shape[1::-1], filtered))
        out[:] = pixels[:, ::-1] if flip else pixels

    def _draw(self, size: tuple[int, int]) -> tuple[Crop, bool, bool]:
        crop = random_crop(size, self.augment.scale, self.augment.ratio)
        return crop, random.random() < self.augment.hflip, random.choice(self.bicubic)


def random_crop(size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Crop:
    """timm's own random crop, drawn from Python's generator.

    Args:
        size: (width, height) of the image in pixels.
        scale: smallest and largest area as a share of the image.
        ratio: smallest and largest width / height.
    """
    from timm.data.transforms import RandomResizedCropAndInterpolation

    shape_only = torch.empty(()).expand(size[1], size[0])
    crop: Crop = RandomResizedCropAndInterpolation.get_params(shape_only, scale, ratio)
    return crop


def _is_turned(data: bytes) -> bool:
    """Whether the EXIF data of a JPEG turn it; the header is parsed only where it mentions an orientation."""
    if b"Exif\0" not in data and b"rientation" not in data:
        return False
    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        return orientation(image) > 1


def _room_for(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 memory for a batch; in a loader process the kind that the training process sees without another copy."""
    empty = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        return empty.new_empty(shape)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return empty.set_(storage, 0, shape)  # type: ignore[call-overload]


def make_decoder(name: str) -> Decoder:
    """Raises MobilezooError where the named decoder is not installed or cannot be compiled here."""
    if name == "region":
        from mobilezoo.data.region import region_decoder

        return region_decoder()
    return WheelsDecoder()


def _variation(augment: Augment) -> Callable[[Image.Image], Image.Image] | None:
    """timm's color jitter or policy on the cropped image, where configured: it costs as much as the decoding."""
    from timm.data import create_transform

    if augment.interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise ConfigError(f"augment.interpolation={augment.interpolation!r}: data.decoder takes {known}")
    if not augment.auto_augment and not augment.color_jitter:
        return None
    _, vary, _ = create_transform(
        (3, 224, 224),
        is_training=True,
        separate=True,
        use_prefetcher=True,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
    )
    varied: Callable[[Image.Image], Image.Image] = with_any_posterize(vary)
    return varied
