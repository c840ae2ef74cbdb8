"""The output of a detector or a segmenter of ours as boxes or a mask, with NumPy alone. Kits and the page do the same.

A detector answers [N, 4 + K]: left, top, right and bottom as shares 0..1 of the crop's sides, then a probability for
each class. A segmenter answers [H, W, K]: logits of every pixel of the crop.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mobilezoo.artifacts import Artifact, BoxThresholds
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size

MOST = 100
"""Boxes of an image."""


@dataclass(frozen=True)
class Box:
    """A box that was found."""

    index: int
    """Of its class."""
    probability: float
    sides: tuple[float, float, float, float]
    """Left, top, right, bottom."""


class Placement(NamedTuple):
    """Where the crop that the network sees lies in the image, in pixels of the image; it may reach beyond it."""

    left: float
    top: float
    width: float
    height: float

    def of(self, sides: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Sides in pixels of the image, of a box in shares of the crop."""
        left, top, right, bottom = sides
        return (
            self.left + left * self.width,
            self.top + top * self.height,
            self.left + right * self.width,
            self.top + bottom * self.height,
        )


def dense_answers(record: Artifact, answer: np.ndarray) -> np.ndarray:
    """What a file answered, [B, N, 4 + K] or [B, H, W, K], checked.

    Args:
        record: of the file.
        answer: its output.

    Raises:
        ConfigError: the layout is not the record's, or a number is not finite.
    """
    if answer.shape[1:] != record.output_shape:
        got, told = ("×".join(map(str, shape)) for shape in (answer.shape[1:], record.output_shape))
        raise ConfigError(f"{record.path!r} answers with {got} numbers per image, its record holds {told}: export it")
    if not np.isfinite(answer).all():
        raise ConfigError(f"{record.path!r} answers with numbers that are not finite")
    return answer


def boxes_of(answer: np.ndarray, thresholds: BoxThresholds) -> list[Box]:
    """Boxes of one image, most probable first: of the best class at each place, without those that cover a better one.

    Args:
        answer: [N, 4 + K].
        thresholds: least probability, and the overlap from which two boxes of a class count as one.
    """
    best = answer[:, 4:].argmax(1)
    scores = answer[np.arange(len(answer)), 4 + best]
    scores = np.where((answer[:, 2:4] > answer[:, :2]).all(1), scores, 0)  # without an area it is no box
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < thresholds.score or len(kept) == MOST:
            break
        if all(best[i] != best[j] or overlap(answer[i, :4], answer[j, :4]) <= thresholds.overlap for j in kept):
            kept.append(int(i))
    return [Box(int(best[i]), float(scores[i]), tuple(map(float, answer[i, :4]))) for i in kept]  # type: ignore[arg-type]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes.

    Args:
        a: left, top, right, bottom.
        b: the same of the other.
    """
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(0.0, float(width)) * max(0.0, float(height))
    either = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - both
    return both / either if either > 0 else 0.0


def mask_of(answer: np.ndarray) -> np.ndarray:
    """The best class of every pixel [H, W], of equal ones the first.

    Args:
        answer: [H, W, K].
    """
    found: np.ndarray = answer.argmax(-1)
    return found


def placement(size: Size, crop: Size, prep: Preprocessing) -> Placement:
    """Where the crop lies in an image.

    Args:
        size: (height, width) of the image.
        crop: (height, width) of the network's input.
        prep: how images become the input.
    """
    resized = prep.fitted(size, crop)
    first = [-((b - a) // 2) if b > a else round((a - b) / 2) for a, b in zip(resized, crop, strict=True)]
    scale = [whole / fitted for whole, fitted in zip(size, resized, strict=True)]
    return Placement(first[1] * scale[1], first[0] * scale[0], crop[1] * scale[1], crop[0] * scale[0])
