"""Follows an evaluation batch by batch: answers and their confidence, and the most confident mistakes.

Of an image stay four numbers; scores of all classes live as long as their batch.
"""

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobilezoo.artifacts import Output
from mobilezoo.evaluation_report import MOST_MISTAKES, Mistake
from mobilezoo.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

    from mobilezoo.data.class_lists import Places

    Watch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


class _Wrong(NamedTuple):
    """A mistake among the most confident ones; the order is that of the heap."""

    confidence: float
    minus_position: int
    truth: int
    guess: int
    truth_confidence: float
    jpeg: str


class Seen(NamedTuple):
    """Answers of a whole split, one number per image in the split's order."""

    truth: np.ndarray
    guess: np.ndarray
    confidence: np.ndarray
    """Probability of the answer."""
    mistakes: tuple[Mistake, ...]
    """Most confident first."""


class Tally:
    """Collects what a report shows.

    Whether a file of others answers with logits or probabilities may be certain only after its last answer, so
    confidences and mistakes are kept for both.
    """

    def __init__(self, *, pictures: bool = True) -> None:
        """`pictures`: keep the mistakes."""
        self.names: tuple[str, ...] = ()
        """Of the outputs."""
        self._most = MOST_MISTAKES if pictures else 0
        self._answers: list[np.ndarray] = []
        self._confidences: list[np.ndarray] = []
        self._worst: tuple[list[_Wrong], list[_Wrong]] = ([], [])
        self._images = 0

    def begin(self, prep: Preprocessing) -> "Watch":
        """What receives every batch.

        Args:
            prep: turns inputs back into pixels.
        """
        return lambda x_bchw, scores_bk, y_b: self._add(prep, x_bchw, scores_bk, y_b)

    def _add(self, prep: Preprocessing, x_bchw: "torch.Tensor", scores_bk: "torch.Tensor", y_b: "torch.Tensor") -> None:
        """Takes a batch: normalized images, what the network or file answered, and the true classes' outputs."""
        import torch

        from mobilezoo.data.thumbnails import thumbnail

        # As in mobilezoo.train.evaluate, so that equal scores of quantized files count the same.
        guess = scores_bk.topk(min(5, scores_bk.shape[1])).indices[:, 0]
        both = torch.stack((scores_bk.float().softmax(dim=1), scores_bk.float()))  # as logits, as probabilities
        rows = torch.arange(len(y_b), device=scores_bk.device)
        answers = torch.stack((y_b, guess)).cpu().numpy()
        confidence = both[:, rows, guess].cpu().numpy()
        of_truth = both[:, rows, y_b].cpu().numpy()
        self._answers.append(answers)
        self._confidences.append(confidence)
        wrong = np.flatnonzero(answers[0] != answers[1])
        for heap, sure, true in zip(self._worst, confidence, of_truth, strict=True):
            for row in wrong[np.argsort(-sure[wrong], kind="stable")][: self._most]:
                if len(heap) == self._most and sure[row] <= heap[0].confidence:
                    break
                truth, wrongly = map(int, answers[:, row])
                picture = thumbnail(_pixels(x_bchw[row], prep))
                one = _Wrong(float(sure[row]), -(self._images + int(row)), truth, wrongly, float(true[row]), picture)
                heapq.heappush(heap, one) if len(heap) < self._most else heapq.heapreplace(heap, one)
        self._images += len(y_b)

    def finish(self, output: Output, unit: float = 1.0) -> Seen:
        """What was seen, once it is known how scores are to be read.

        Args:
            output: what the scores are.
            unit: what a score is multiplied by to be a probability, where scores are no logits.
        """
        read = 0 if output == "logits" else 1
        unit = 1.0 if output == "logits" else unit
        truth, guess = np.concatenate(self._answers, axis=1)
        confidence = np.clip(np.concatenate(self._confidences, axis=1)[read] * unit, 0, 1)
        mistakes = tuple(
            Mistake(
                position=-wrong.minus_position,
                truth=wrong.truth,
                guess=wrong.guess,
                confidence=min(max(wrong.confidence * unit, 0.0), 1.0),
                truth_confidence=min(max(wrong.truth_confidence * unit, 0.0), 1.0),
                jpeg=wrong.jpeg,
            )
            for wrong in sorted(self._worst[read], reverse=True)
        )
        return Seen(truth, guess, confidence, mistakes)


def output_names(outputs: int, places: "Places", data: tuple[str, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
    """A name for every output: the network's own, ImageNet's words, the data's class, or its number.

    Args:
        outputs: number of outputs.
        places: outputs of the data's classes.
        data: names of the data's classes.
        labels: the network's names; () where it has none.
    """
    from mobilezoo.data.class_lists import SUBSETS, imagenet_places, imagenet_words

    if labels:
        return labels
    names = [f"class {index}" for index in range(outputs)]
    subset = next((name for name, size in SUBSETS.items() if outputs in (size, size + 1)), None)
    if subset is not None and data and imagenet_places(data, outputs) is not None:
        names = list(imagenet_words(subset, outputs))
    else:
        for name, output in zip(data, places.outputs, strict=False):
            names[output] = name
    return tuple(names)


def _pixels(x_chw: "torch.Tensor", prep: Preprocessing) -> np.ndarray:
    """The pixels (H, W, C) of a normalized image."""
    shape = (-1, 1, 1)
    x = x_chw.float().cpu().numpy() * np.reshape(prep.std, shape) + np.reshape(prep.mean, shape)
    pixels: np.ndarray = np.clip(np.rint(x * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels
