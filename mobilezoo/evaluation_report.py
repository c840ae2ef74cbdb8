"""Records of an evaluation in detail: scores by class, confusions, calibration, and the most confident mistakes."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from mobilezoo.artifacts import Output
from mobilezoo.config import Record

EVALUATION = ".evaluation.json"
"""End of such a record's file name."""
MATRIX_CLASSES = 40
"""Most classes of which every confusion is kept; of more, the `TOP_CONFUSIONS` most frequent ones."""
TOP_CONFUSIONS = 100
MOST_MISTAKES = 24

Share = Annotated[float, Field(ge=0, le=1)]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=1 << 17)]


class ClassScore(Record):
    """One class: how often it occurs, is answered, and is answered rightly."""

    index: NonNegativeInt
    """Its output."""
    label: str
    images: NonNegativeInt
    predicted: NonNegativeInt
    """Images of any class that were taken for it."""
    correct: NonNegativeInt
    agreed: NonNegativeInt | None = None
    """Of an exported file: images of the class for which PyTorch's best class is the same."""
    pytorch_correct: NonNegativeInt | None = None

    @property
    def recall(self) -> float | None:
        """Percent of its images that are answered rightly; None without images."""
        return percent(self.correct, self.images)

    @property
    def precision(self) -> float | None:
        """Percent of its answers that are right; None where it is never answered."""
        return percent(self.correct, self.predicted)


class Confusion(Record):
    """How many images of one class were taken for a class (another one, or itself)."""

    truth: NonNegativeInt
    guess: NonNegativeInt
    images: NonNegativeInt


class CalibrationBin(Record):
    """Images whose best class has a probability between two bounds."""

    low: Share
    high: Share
    images: NonNegativeInt
    confidence: Share
    """Mean probability of the best class; the middle of the bounds where there is no image."""
    correct: NonNegativeInt


class Mistake(Record):
    """An image with a wrong answer."""

    position: NonNegativeInt
    """In the split, from 0."""
    truth: NonNegativeInt
    guess: NonNegativeInt
    confidence: Share
    """Probability of the answer."""
    truth_confidence: Share
    """Probability of the true class."""
    jpeg: Base64
    """The image as the network was given it, small."""


class EvaluationReport(Record):
    """A network or a file on a validation split, in detail."""

    model: str
    """As it was named."""
    sha256: str = ""
    """Of the checkpoint or exported file; empty for a network by name."""
    data: str
    runs_in: str
    made_at: str
    images: PositiveInt
    top1: float
    """Percent."""
    top5: float
    """Percent."""
    loss: float | None
    """Mean cross entropy in nats."""
    output: Output
    ece: Share
    """Expected calibration error: mean distance between confidence and accuracy, weighted by the bins' images."""
    agreement: Share | None = None
    """Of an exported file: share of images whose best class is PyTorch's."""
    pytorch_top1: float | None = None
    note: str = ""
    """Why a figure is missing."""
    classes: tuple[ClassScore, ...]
    """Those that occur or were answered, in the network's order."""
    confusions: tuple[Confusion, ...]
    """By frequency; with what was answered rightly if `complete`."""
    complete: bool
    """Whether `confusions` holds all that occurred."""
    calibration: tuple[CalibrationBin, ...]
    mistakes: Annotated[tuple[Mistake, ...], Field(max_length=4 * MOST_MISTAKES)]
    """Most confident first."""

    @model_validator(mode="after")
    def _is_of_its_classes(self) -> Self:
        images = {one.index: one.images for one in self.classes}
        named: list[Confusion | Mistake] = [*self.confusions, *self.mistakes]
        if len(images) < len(self.classes) or not all(images.get(one.truth) and one.guess in images for one in named):
            raise ValueError("confusions and mistakes are of the classes listed, each of which is listed once")
        if sum(images.values()) != self.images or (self.complete and len(images) > MATRIX_CLASSES):
            raise ValueError(f"images are those of all classes, at most {MATRIX_CLASSES} where all confusions are kept")
        return self


def percent(part: int, whole: int) -> float | None:
    """A share in percent; None of nothing.

    Args:
        part: the counted ones.
        whole: all of them.
    """
    return 100 * part / whole if whole else None
