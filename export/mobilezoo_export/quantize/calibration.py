"""Calibration images, cut to a file's batch size."""

from collections.abc import Sequence

import numpy as np

from mobilezoo.errors import ExportError
from mobilezoo_export.pixels import to_pixels
from mobilezoo_export.records import ExportSpec

MIN_IMAGES = 8
"""Fewer leave activation ranges to chance."""


def too_few(calibration: Sequence[np.ndarray], spec: ExportSpec) -> str | None:
    """Return why there are too few calibration images, or None if there are enough.

    Args:
        calibration: float32 NCHW batches of any size.
        spec: precision of the file, for the message.
    """
    count = sum(len(batch) for batch in calibration)
    if count >= MIN_IMAGES:
        return None
    return f"{spec.precision} needs at least {MIN_IMAGES} calibration images, got {count}: pass more with --calib"


def calibration_batches(calibration: Sequence[np.ndarray], spec: ExportSpec) -> list[np.ndarray]:
    """Regroup calibration images into batches of exactly `spec.batch`; images that do not fill a batch are dropped.

    Args:
        calibration: normalized float32 NCHW batches of any size.
        spec: batch size, input shape and options of the file.

    Returns:
        Float32 NCHW batches: normalized, or pixel values 0..255 for files with the option `image`.

    Raises:
        ExportError: images are too few, have another shape, or hold values that are not finite.
    """
    if reason := too_few(calibration, spec):
        raise ExportError(reason)
    images = np.concatenate(list(calibration))
    if images.shape[1:] != spec.shape[1:]:
        raise ExportError(f"calibration images have shape {images.shape[1:]}, the model takes {spec.shape[1:]}")
    if not np.isfinite(images).all():
        raise ExportError("calibration images hold values that are not finite: check the preprocessing")
    if spec.options.image:
        images = to_pixels(images, spec.preprocessing).astype(np.float32)
    whole = len(images) // spec.batch * spec.batch
    return [np.ascontiguousarray(images[i : i + spec.batch], np.float32) for i in range(0, whole, spec.batch)]
