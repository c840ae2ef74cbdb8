"""Record of what a run is trained on: images after augmentation, and the number of images of every class."""

from typing import Annotated

from pydantic import Field, NonNegativeInt

from mobilezoo.config import Record
from mobilezoo.evaluation_report import Base64

PREVIEW = "preview.json"
"""In a run folder."""
MOST_SAMPLES = 64


class TrainingSample(Record):
    """An image as the first epoch shows it."""

    label: str
    jpeg: Base64


class ClassBalance(Record):
    """How many images of a class the splits have."""

    label: str
    train: NonNegativeInt
    validation: NonNegativeInt


class TrainingPreview(Record):
    """Of one run; what its source leaves open is missing, with the reason."""

    source: str
    samples: Annotated[tuple[TrainingSample, ...], Field(max_length=MOST_SAMPLES)] = ()
    classes: tuple[ClassBalance, ...] = ()
    note: str = ""
