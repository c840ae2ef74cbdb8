"""Pixels 0..255 and normalized values, converted both ways."""

import numpy as np

from mobilezoo.preprocessing import Preprocessing


def pixel_scale(preprocessing: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors that normalize pixel values 0..255: `pixels * scale + shift`.

    Args:
        preprocessing: mean and standard deviation per channel.
        channels: channels C of the image.

    Returns:
        (scale, shift), each float32 [1, C, 1, 1].
    """
    prep = preprocessing.for_channels(channels)
    mean, std = (np.asarray(values).reshape(1, channels, 1, 1) for values in (prep.mean, prep.std))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def to_pixels(batch: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Convert normalized values to pixels, rounded and clipped to 0..255.

    Args:
        batch: normalized float32 NCHW values.
        preprocessing: mean and standard deviation per channel, of pixels in 0..1.

    Returns:
        uint8 NCHW pixels.
    """
    scale, shift = pixel_scale(preprocessing, batch.shape[1])
    pixels: np.ndarray = np.clip(np.rint((batch - shift) / scale), 0, 255).astype(np.uint8)
    return pixels


def to_normalized(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Convert pixels to the values that the network expects.

    Args:
        pixels: uint8 NCHW pixels 0..255.
        preprocessing: mean and standard deviation per channel, of pixels in 0..1.

    Returns:
        Normalized float32 NCHW values.
    """
    scale, shift = pixel_scale(preprocessing, pixels.shape[1])
    return np.asarray(pixels * scale + shift, dtype=np.float32)
