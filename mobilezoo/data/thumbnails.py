"""Small pictures for pages."""

import base64
import io

import numpy as np
from PIL import Image

SIDE_PX = 96


def thumbnail(pixels: np.ndarray) -> str:
    """Base64 of a JPEG of at most `SIDE_PX` a side; images of few pixels are enlarged in squares.

    Args:
        pixels: uint8 (H, W, C) of 1, 3 or 4 channels.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if image.mode == "RGBA":
        image = image.convert("RGB")
    times = SIDE_PX // max(image.size)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((SIDE_PX, SIDE_PX))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=88)
    return base64.b64encode(written.getvalue()).decode()
