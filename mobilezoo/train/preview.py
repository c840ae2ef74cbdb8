"""What training is fed, kept in the run folder for the report: `data.preview` images, and the balance of classes."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from mobilezoo.data.datasets import DigitImages
from mobilezoo.data.loaders import TrainBatches
from mobilezoo.data.thumbnails import thumbnail
from mobilezoo.files import write_text
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.step import TrainState
from mobilezoo.training_preview import PREVIEW, ClassBalance, TrainingPreview, TrainingSample

STREAM = "a stream shows no samples before it is trained on"
UNCOUNTED = "this source tells the classes of its images only as they are read: they are not counted"


def keep_preview(folder: Path, config: TrainConfig, state: TrainState) -> None:
    """Writes the preview of a run that begins; the generators that training draws from are left as they were.

    Args:
        folder: of the run.
        config: `data.preview` is the number of images; 0 writes nothing.
        state: before the first update.
    """
    if not config.data.preview or (folder / PREVIEW).is_file():
        return
    fit, held_out = (class_counts(loader.dataset) for loader in (state.train_batches.loader, state.val_batches.loader))
    known = fit is not None and held_out is not None
    unreadable = state.bad_images.clone()
    preview = TrainingPreview(
        source=config.data.source,
        samples=_samples(state.train_batches, state.labels, config.data.preview),
        classes=tuple(
            ClassBalance(label=label, train=fit[index], validation=held_out[index])
            for index, label in enumerate(state.labels)
        )
        if fit is not None and held_out is not None
        else (),
        note="; ".join(filter(None, (STREAM * (state.train_batches.order is None), UNCOUNTED * (not known)))),
    )
    state.bad_images.copy_(unreadable)  # counted when they are trained on
    write_text(folder / PREVIEW, preview.model_dump_json() + "\n")


def _samples(batches: TrainBatches, labels: tuple[str, ...], count: int) -> tuple[TrainingSample, ...]:
    """The first images of the first epoch, varied as it will vary them; mixing and erasing come later, in batches."""
    if batches.order is None:
        return ()
    dataset: Any = batches.loader.dataset
    keys = list(islice((key for batch in batches.order for key in batch), count))
    if hasattr(dataset, "__getitems__"):  # decoded in batches, channels last and all of one size
        pairs = [(x[0].numpy(), int(y[0])) for x, y in (dataset.__getitems__([key]) for key in keys)]
    else:
        pairs = [(image.numpy().transpose(1, 2, 0), target) for image, target in (dataset[key] for key in keys)]
    return tuple(TrainingSample(label=labels[target], jpeg=thumbnail(pixels)) for pixels, target in pairs)


def class_counts(dataset: Any) -> Counter[int] | None:
    """Images by class, whole split; None where that is known only by reading them.

    Args:
        dataset: of a loader: varied images, a part of a split, or the split itself.
    """
    while not hasattr(dataset, "samples") and not isinstance(dataset, DigitImages) and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if isinstance(dataset, DigitImages):
        return Counter(int(dataset.targets[index]) for index in dataset.indices)
    samples = getattr(dataset, "samples", None)
    return None if samples is None else Counter(int(target) for _, target in samples)
