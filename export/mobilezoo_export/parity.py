"""Measure how far a file's logits are from PyTorch's."""

import math
import sys

import numpy as np

from mobilezoo.artifacts import BoxThresholds, Parity
from mobilezoo_export.tolerances import tolerance_for

UNLIMITED = sys.float_info.max
"""Records hold finite numbers only."""


def measure_parity(
    reference: np.ndarray,
    logits: np.ndarray,
    *,
    precision: str,
    inputs: str,
    ran_in: str,
    boxes: BoxThresholds | None = None,
) -> Parity:
    """Compare a file's logits with PyTorch's; NaN or another shape counts as the largest possible difference.

    Args:
        reference: PyTorch's logits [images, classes], or [images, ..., classes] of a dense task.
        logits: the file's logits, same shape.
        precision: of the file, for the record.
        inputs: source of the images, for the record.
        ran_in: runtime that computed `logits`, for the record.
        boxes: of a detector, whose sides are no classes; places agree where both find the same or nothing.
    """
    reference = reference.astype(np.float64)
    logits = logits.astype(np.float64)
    limit = tolerance_for(precision)
    comparable = logits.shape == reference.shape and bool(np.isfinite(logits).all())
    error = np.abs(logits - reference) if comparable else np.full(reference.shape, UNLIMITED)
    scale = float(reference.std()) or 1.0
    return Parity(
        inputs=inputs,
        images=len(reference),
        max_abs=float(error.max()),
        relative=min(float(error.max()) / scale, UNLIMITED),
        snr_db=_snr_db(reference, error),
        top1_agreement=float((_best(logits, boxes) == _best(reference, boxes)).mean()) if comparable else 0.0,
        tolerance=limit.relative,
        ran_in=ran_in,
    )


def _best(scores: np.ndarray, boxes: BoxThresholds | None) -> np.ndarray:
    """Return the best class of every image, pixel or place; -1 for a place without a box."""
    if boxes is None:
        return np.asarray(scores.argmax(-1))
    found = scores[..., 4:]
    return np.where(found.max(-1) >= boxes.score, found.argmax(-1), -1)


def _snr_db(reference: np.ndarray, error: np.ndarray) -> float:
    """Return 10 log10 of signal power over error power; the mean logit carries no information and is left out."""
    with np.errstate(over="ignore"):
        noise = float((error**2).mean())
    signal = float(reference.var())
    if not math.isfinite(noise):
        return -999.0
    # 200 dB stands for "equal": beyond double precision, and JSON has no infinity.
    return 200.0 if noise == 0 else min(200.0, 10 * math.log10(max(signal, 1e-300) / noise))
