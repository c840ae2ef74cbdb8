"""The output of a file: a score per class, and whether scores are logits or probabilities already."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mobilezoo.artifacts import Artifact, Output
from mobilezoo.errors import ConfigError

if TYPE_CHECKING:
    import torch
LEAST = 1e-9
"""What a probability of 0 counts as in a loss: quantized ones are rounded to 0."""
SUM_TOLERANCE = 0.02
"""Of the sum of half-precision probabilities; quantized ones may be off by half a step each."""
WORDS: dict[Output, str] = {
    "logits": "logits",
    "probabilities": "probabilities",
    "percent": "probabilities in percent",
    "sigmoid": "sigmoid, a probability of each class for itself",
}

OUTPUTS: dict[str, Output] = {"logits": "logits", "probabilities": "probabilities", "percent": "percent"}
"""Words for --outputs."""
UNITS: dict[Output, float] = {"percent": 0.01}
"""What a score is multiplied by to be a probability, where it is not 1."""


class Answers:
    """Reads a file's output; where the graph leaves open whether it is probabilities, all numbers read decide."""

    def __init__(self, whose: str, declared: Output | None, step: float = 0.0) -> None:
        """`step` is that of quantized numbers."""
        self._whose, self._declared, self._step = whose, declared, step
        self._wholes: dict[Output, float] = {"probabilities": 1.0, "percent": 100.0}
        """What the scores of an image may still be, and their sum then."""

    @classmethod
    def of_file(cls, path: Path, record: Artifact) -> Self:
        """The reader of an exported file.

        Args:
            path: its name appears in messages.
            record: output kind and quantization of the file.
        """
        how = record.output_quantization
        return cls(path.name, None if "output" in record.undeclared else record.output, how.scale if how else 0.0)

    def read(self, answer: np.ndarray, images: int) -> np.ndarray:
        """Scores (N, classes) of a batch; axes of size 1 vanish.

        Args:
            answer: what the file returned, of any shape that has one number per image and class.
            images: N, the number of images that it was given.

        Raises:
            ConfigError: the shape has no score per class, or a number is not finite.
        """
        shape = "×".join(map(str, answer.shape))
        classes = max(answer.shape[1:], default=0)
        if answer.size != images * classes or len(answer) != images:
            raise ConfigError(f"{self._whose!r} answers {images} images with shape {shape}: that is no score per class")
        if classes < 2:
            raise ConfigError(f"{self._whose!r} gives one number per image: that is no score per class")
        scores = answer.reshape(images, classes)
        if not np.isfinite(scores).all():
            raise ConfigError(f"{self._whose!r} answers with numbers that are not finite: see --preprocess")
        self._wholes = {name: whole for name, whole in self._wholes.items() if self._could_be(scores, whole)}
        return scores

    @property
    def output(self) -> Output:
        """What the answers read so far are."""
        found: Output = next(iter(self._wholes), "logits")
        return self._declared or found

    @property
    def unit(self) -> float:
        """What a score is multiplied by to be a probability."""
        return UNITS.get(self.output, 1.0)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Of scores that `read` gave, once all are read."""
        if self.output != "logits":
            return scores * self.unit
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        normalized: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return normalized

    def _could_be(self, scores: np.ndarray, whole: float) -> bool:
        off = SUM_TOLERANCE * whole + scores.shape[1] * self._step / 2
        sums = scores.sum(axis=1)
        return bool(scores.min() >= 0 and scores.max() <= whole + off and np.all(np.abs(sums - whole) <= off))


def chosen_output(path: Path, record: Artifact, word: str | None) -> Output | None:
    """The value of --outputs as a kind of output.

    Args:
        path: the file.
        record: its description.
        word: what was given; None for nothing.

    Raises:
        ConfigError: no such kind, or the file itself shows another.
    """
    if word is None:
        return None
    if word not in OUTPUTS:
        raise ConfigError(f"--outputs {word!r}: choose from {', '.join(OUTPUTS)}")
    if "output" not in record.undeclared and record.output != word:
        raise ConfigError(f"{path.name!r} ends in {record.output}, as the file shows: leave --outputs out")
    return OUTPUTS[word]


def check_labels(labels: tuple[str, ...], outputs: int) -> None:
    """Raise ConfigError unless every output has one name, or there are no names.

    Args:
        labels: class names in the file's order; () where there are none.
        outputs: number of the file's outputs.
    """
    if labels and len(labels) != outputs:
        first = ", the first is usually the background's" if outputs == len(labels) + 1 else ""
        raise ConfigError(f"{outputs} outputs and {len(labels)} labels: --labels has one name per output{first}")


def evaluate_answers(
    run: Callable[[np.ndarray], np.ndarray],
    batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]",
    answers: Answers,
    watch: "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] | None" = None,
) -> dict[str, Any]:
    """Scores of a file over batches, as fields of `Scores`.

    The loss is the mean of -log p for probabilities, and None for sigmoids. `zeros` counts the images whose class had
    probability 0, for which the loss uses LEAST.

    Args:
        run: images (N, C, H, W) float32 to the file's output.
        batches: (x, y) with class indices y (N,).
        answers: reader of the output; fresh, as it infers the kind of output from all that it reads.
        watch: receives images, scores as the file gives them, and y of every batch.
    """
    import torch

    from mobilezoo.train.evaluate import evaluate

    of_class: list[float] = []

    def scored() -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        for x_bchw, y in batches:
            scores = torch.from_numpy(answers.read(run(x_bchw.numpy()), len(y)))
            of_class.extend(scores[torch.arange(len(y)), y].tolist())
            if watch is not None:
                watch(x_bchw, scores, y)
            yield scores, y

    result = evaluate(lambda scores: scores, scored()).model_dump()
    if answers.output == "sigmoid":
        result["loss"] = None
    elif answers.output != "logits":
        shares = np.multiply(of_class, answers.unit)
        result["loss"] = -float(np.log(np.maximum(shares, LEAST)).mean())
        result["zeros"] = int((shares < LEAST).sum())
    return {**result, "output": answers.output}
