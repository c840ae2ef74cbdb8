"""`mobilezoo predict`: the best classes of single images, by a network, a checkpoint or an exported file."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DataError, existing_path
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size
from mobilezoo.verbs.opening import described, is_exported
from mobilezoo.verbs.options import SubjectOptions

BATCH = 16


class Guess(Record):
    """One class of an image's answer."""

    index: int
    label: str | None
    """None where the network knows no names."""
    probability: float


class Prediction(Record):
    """The best classes of one image, or why it could not be read."""

    image: str
    best: tuple[Guess, ...] = ()
    fault: str | None = None


@dataclass
class _Scorer:
    """float32 NCHW images → probabilities [n, classes], and what must be known to feed it."""

    probabilities: Callable[[np.ndarray], np.ndarray]
    preprocessing: Preprocessing
    resolution: Size
    labels: tuple[str, ...]


def predict(subject: str, images: list[Path], options: SubjectOptions, top: int = 5) -> list[Prediction]:
    """The `top` classes of every image; a folder stands for all images in it, however deep.

    Images are read, resized and cropped as `eval` does. One that cannot be read has its fault in its place. Raises
    ConfigError for a network with random weights, DataError where there is no image.
    """
    from mobilezoo.data.pixels import BAD_IMAGE, Pixels
    from mobilezoo.data.transforms import eval_transform

    paths = images_of(images)
    with _scorer(subject, options) as scorer:
        fit = eval_transform(scorer.preprocessing, scorer.resolution)
        pixels = Pixels(channels=scorer.preprocessing.channels)
        found: dict[Path, Prediction] = {}
        waiting: list[tuple[Path, np.ndarray]] = []
        for path in paths:
            try:
                waiting.append((path, np.asarray(fit(pixels.read(path)))))
            except BAD_IMAGE as error:
                found[path] = Prediction(image=str(path), fault=" ".join(str(error).split())[:200])
            if len(waiting) == BATCH:
                found |= _answers(scorer, waiting, top)
                waiting = []
        found |= _answers(scorer, waiting, top)
    return [found[path] for path in paths]


def images_of(given: list[Path]) -> list[Path]:
    """Files as they are named, folders as the images in them in order. Raises DataError."""
    from mobilezoo.data.names import is_image, order
    from mobilezoo.data.scan import walk

    found: list[Path] = []
    for path in given:
        place = existing_path(path, "image")
        if not place.is_dir():
            found.append(place)
            continue
        inside = sorted((name for name, what in walk(place) if what == "file" and is_image(name)), key=order)
        if not inside:
            raise DataError(f"{str(path)!r} holds no images")
        found += [place / name for name in inside]
    return list(dict.fromkeys(found))


def _answers(scorer: _Scorer, waiting: list[tuple[Path, np.ndarray]], top: int) -> dict[Path, Prediction]:
    if not waiting:
        return {}
    scores = scorer.probabilities(np.stack([image for _, image in waiting]))
    if scorer.labels and len(scorer.labels) != scores.shape[1]:
        raise ConfigError(
            f"{scores.shape[1]} outputs and {len(scorer.labels)} labels: --labels has one name per output"
        )
    return {path: _prediction(path, row, scorer.labels, top) for (path, _), row in zip(waiting, scores, strict=True)}


def _prediction(path: Path, row: np.ndarray, labels: tuple[str, ...], top: int) -> Prediction:
    order = np.argsort(-row, kind="stable")[:top]
    best = (Guess(index=int(i), label=labels[i] if labels else None, probability=float(row[i])) for i in order)
    return Prediction(image=str(path), best=tuple(best))


@contextmanager
def _scorer(subject: str, options: SubjectOptions) -> Iterator[_Scorer]:
    if is_exported(subject):
        from mobilezoo_export import FileApart

        record = described(existing_path(subject, "file"), options)
        with FileApart(subject, record) as opened:
            known = record.output == "probabilities"
            labels = options.labels or record.labels
            size = record.input.resolution
            yield _Scorer(lambda x: _softmax(opened.run(x), known), record.preprocessing, size, labels)
        return
    import torch

    from mobilezoo.verbs.subject import load_subject

    loaded = load_subject(subject, options)
    if loaded.fresh:
        raise ConfigError(f"{subject!r} has random weights here: pass --checkpoint PATH")

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return _softmax(loaded.network(torch.from_numpy(images)).numpy(), known=False)

    yield _Scorer(run, loaded.preprocessing, loaded.resolution, loaded.labels)


def _softmax(answers: np.ndarray, known: bool) -> np.ndarray:
    """Probabilities; answers that are some already, as files of others often give, stay as they are."""
    if answers.ndim != 2:
        raise ConfigError(f"answers of shape {answers.shape} are no score per class")
    sums = answers.sum(axis=1)
    if known or (answers.min() >= 0 and np.all(np.abs(sums - 1) < 0.05)):
        return answers
    powers = np.exp(answers - answers.max(axis=1, keepdims=True))
    normalized: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalized


def as_csv(predictions: list[Prediction]) -> str:
    """One row per image and rank; a fault has a row of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "rank", "index", "label", "probability", "fault"))
    for found in predictions:
        for rank, guess in enumerate(found.best, 1):
            writer.writerow((found.image, rank, guess.index, guess.label or "", f"{guess.probability:.6f}", ""))
        if found.fault:
            writer.writerow((found.image, "", "", "", "", found.fault))
    return out.getvalue()


def print_predictions(predictions: list[Prediction]) -> None:
    from mobilezoo.verbs.tables import print_table

    rows: list[tuple[Any, ...]] = []
    for found in predictions:
        for rank, guess in enumerate(found.best, 1):
            label = guess.label if guess.label is not None else f"class {guess.index}"
            rows.append((found.image if rank == 1 else "", rank, label, f"{100 * guess.probability:.2f}%"))
        if found.fault:
            rows.append((found.image, "", f"cannot be read: {found.fault}", ""))
    print_table("best classes", ("image", "rank", "class", "probability"), rows)
