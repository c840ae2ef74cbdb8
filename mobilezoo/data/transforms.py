"""PIL images → tensors: the one evaluation transform of every loader and verb, and the one of training.

Images come from `Pixels` with as many channels as the preprocessing record has: grey, RGB or RGBA.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageOps

from mobilezoo.data.config import Augment
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, as_size


class Normalize:
    """uint8 pixels [..., C, H, W] → float32 (x / 255 - mean) / std, bit for bit as torchvision computes it."""

    def __init__(self, prep: Preprocessing, device: torch.device | None = None) -> None:
        self.mean = torch.tensor(prep.mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(prep.std, device=device).view(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[-3] == len(self.mean), "images come from Pixels with the network's channels"
        return pixels.to(torch.float32).div(255).sub_(self.mean).div_(self.std)


def eval_pixels(prep: Preprocessing, resolution: int | Size) -> Callable[[Image.Image], torch.Tensor]:
    """The evaluation transform up to the pixels: an image to uint8 (C, H, W).

    Args:
        prep: crop, resize and interpolation (timm's transform before normalizing).
        resolution: (height, width), or the side of a square.
    """
    from timm.data import create_transform

    fitted: Callable[[Image.Image], torch.Tensor]
    fitted = create_transform((prep.channels, *as_size(resolution)), normalize=False, **prep.to_timm())
    return fitted


def eval_transform(prep: Preprocessing, resolution: int | Size) -> Callable[[Image.Image], torch.Tensor]:
    """The whole evaluation transform: an image to float32 (C, H, W); equal to timm's own.

    Args:
        prep: crop, resize, interpolation, mean and deviation.
        resolution: (height, width), or the side of a square.
    """
    from torchvision.transforms import Compose

    whole: Callable[[Image.Image], torch.Tensor] = Compose([eval_pixels(prep, resolution), Normalize(prep)])
    return whole


def train_transform(augment: Augment, resolution: int | Size, prep: Preprocessing) -> Callable[[Image.Image], Any]:
    """timm's training transform from an image to uint8 (C, H, W).

    Args:
        augment: crop, flip, color and policy; erasing and mixup come later, on the device.
        resolution: (height, width), or the side of a square.
        prep: channels; its mean fills what a policy moves out of the image.

    Raises:
        ConfigError: the policy does not suit the channels.
    """
    from timm.data import create_transform

    check_augment(augment, prep.channels)
    varied: Callable[[Image.Image], Any] = create_transform(
        (prep.channels, *as_size(resolution)),
        is_training=True,
        use_prefetcher=True,  # stops at uint8: the rest runs on the device
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=prep.mean,
        std=prep.std,
    )
    return with_any_posterize(varied)


def with_any_posterize(transform: Any) -> Any:
    """timm's transform with a Posterize that accepts zero bits, which the policies produce: the image becomes black.

    Newer Pillows raise ValueError for zero bits, so that any run with such a policy would end at some image.
    """
    for step in transform.transforms:
        policies = [*getattr(step, "policy", ()), getattr(step, "ops", ())]
        for operation in (operation for policy in policies for operation in policy):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    if bits < 1:
        return Image.new(image.mode, image.size)
    return image if bits >= 8 else ImageOps.posterize(image, bits)


def check_augment(augment: Augment, channels: int) -> None:
    """Raise ConfigError for variations that have no meaning for images of that many channels.

    Args:
        augment: training-time variation.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
    """
    if channels == 4 and augment.auto_augment:
        raise ConfigError(
            f"augment.auto_augment={augment.auto_augment!r} knows no transparency, and in_chans=4 asks for it: "
            "set data.augment.auto_augment=null"
        )
