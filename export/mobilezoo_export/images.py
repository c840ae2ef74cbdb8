"""Real images without a download: crops of the two photographs that scikit-learn ships."""

import numpy as np

from mobilezoo_export.records import ModelSpec

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
SAMPLE_NAME = "crops of scikit-learn's sample photographs"


def sample_images(spec: ModelSpec, count: int = 64, seed: int = 0) -> np.ndarray:
    """Crop and preprocess sample photographs.

    Args:
        spec: channels, resolution and preprocessing.
        count: number of images.
        seed: of the crops; equal seeds give equal images.

    Returns:
        Float32 images (count, in_chans, height, width).
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    photographs = load_sample_images().images
    crops = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(rng.uniform(0.25, 1.0) * min(photograph.shape[:2]))
        top, left = (int(rng.integers(0, length - side + 1)) for length in photograph.shape[:2])
        crop = Image.fromarray(photograph[top : top + side, left : left + side])
        crops.append(np.asarray(crop.resize(spec.resolution[::-1], Image.Resampling.BICUBIC), dtype=np.float32))
    return normalize(np.stack(crops), spec)


def normalize(images_nhwc: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Preprocess RGB images; 2 or more than 4 channels are copies of grey, the fourth channel of 4 is opaque alpha.

    Args:
        images_nhwc: RGB values 0..255, NHWC, already at the model's resolution.
        spec: channels and preprocessing.

    Returns:
        Float32 NCHW images as the model expects.
    """
    scaled, prep = images_nhwc / 255.0, spec.preprocessing.for_channels(spec.in_chans)
    if spec.in_chans == 4:
        scaled = np.concatenate([scaled, np.ones_like(scaled[..., :1])], axis=-1)
    elif spec.in_chans != 3:
        scaled = np.repeat(scaled @ np.array(LUMA)[:, None], spec.in_chans, axis=-1)
    normalized = (scaled - np.array(prep.mean)) / np.array(prep.std)
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2), dtype=np.float32)
