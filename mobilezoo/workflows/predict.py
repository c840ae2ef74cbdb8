"""`mobilezoo predict`: the best classes of single images, by a network, a checkpoint or an exported file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilezoo.artifacts import Artifact, Task
from mobilezoo.config import Record
from mobilezoo.dense.reading import boxes_of, dense_answers, mask_of, placement
from mobilezoo.errors import ConfigError, DataError, existing_path
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size
from mobilezoo.workflows.answers import WORDS, Answers, check_labels
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import check_network, described, refuse_weights

CLASSES = 5
"""Of an image, unless another number is wanted."""
BATCH = 16


class Guess(Record):
    """One class of an image's answer."""

    index: int
    label: str | None
    """None where the network has no class names."""
    probability: float


class FoundBox(Guess):
    """One box that a detector found, its sides in pixels of the upright image; they may lie outside of it."""

    left: float
    top: float
    right: float
    bottom: float


class Area(Record):
    """One class of a segmenter's mask."""

    index: int
    label: str | None
    share: float
    """Of the pixels of the crop that the network sees, 0..1."""


class Prediction(Record):
    """What was found in one image, or why it could not be read."""

    image: str
    task: Task = "classify"
    best: tuple[Guess, ...] = ()
    """Of a classifier, most probable first."""
    boxes: tuple[FoundBox, ...] = ()
    """Of a detector, most probable first."""
    areas: tuple[Area, ...] = ()
    """Of a segmenter, largest first."""
    fault: str | None = None


@dataclass
class _Scorer:
    """float32 NCHW images → what a network or file answers, and what must be known to feed and to read it."""

    run: Callable[[np.ndarray], np.ndarray]
    answers: Answers
    preprocessing: Preprocessing
    resolution: Size
    labels: tuple[str, ...]
    proof: str | None = None
    """Of a file without a record: that nothing was shown of it."""
    dense: Artifact | None = None
    """Record of a file that answers with boxes or masks."""


def predict(
    model: str,
    images: list[Path],
    options: ModelOptions = NO_OPTIONS,
    *,
    top: int | None = None,
    hooks: Hooks = SILENT,
) -> list[Prediction]:
    """The most probable classes of every image; of files that answer with boxes or masks, those.

    Images are read, resized and cropped as `evaluate` does. One that cannot be read has its fault in its place.

    Args:
        model: name, YAML, checkpoint or exported file.
        images: files and folders; a folder stands for all images in it, however deep.
        options: changes to what the record or the config has.
        top: classes, boxes or areas per image at most; None: 5 classes, all boxes, all areas.
        hooks: receives a message for a file without a record.

    Raises:
        ConfigError: the network has random weights.
        DataError: there is no image.
    """
    from mobilezoo.data.pixels import BAD_IMAGE, Pixels
    from mobilezoo.data.transforms import eval_transform

    paths = images_of(images)
    with _scorer(model, options) as scorer:
        fit = eval_transform(scorer.preprocessing, scorer.resolution)
        pixels = Pixels(channels=scorer.preprocessing.channels)
        faults: dict[Path, str] = {}
        scores: dict[Path, np.ndarray] = {}
        dense: dict[Path, Prediction] = {}
        sizes: dict[Path, Size] = {}
        waiting: dict[Path, np.ndarray] = {}

        def score() -> None:
            for path, answer in _scores(scorer, waiting).items():
                if scorer.dense is None:
                    scores[path] = answer
                else:  # answers of many images would fill the memory
                    dense[path] = _found(scorer.dense, path, answer, sizes[path], top)
            waiting.clear()

        for path in paths:
            try:
                image = pixels.read(path)
                waiting[path], sizes[path] = np.asarray(fit(image)), (image.height, image.width)
            except BAD_IMAGE as error:
                faults[path] = " ".join(str(error).split())[:200]
            if len(waiting) == BATCH:
                score()
        score()
    if scorer.proof and scores:
        hooks.on_message(f"{model}: output: {WORDS[scorer.answers.output]}; {scorer.proof}")
    if scorer.dense is not None:
        task = scorer.dense.task
        return [dense.get(path, Prediction(image=str(path), task=task, fault=faults.get(path))) for path in paths]
    return [_prediction(scorer, path, scores.get(path), faults.get(path), top) for path in paths]


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


def _scores(scorer: _Scorer, waiting: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    if not waiting:
        return {}
    answer = scorer.run(np.stack(list(waiting.values())))
    if scorer.dense is not None:
        return dict(zip(waiting, dense_answers(scorer.dense, answer), strict=True))
    scores = scorer.answers.read(answer, len(waiting))
    check_labels(scorer.labels, scores.shape[1])
    return dict(zip(waiting, scores, strict=True))


def _prediction(
    scorer: _Scorer, path: Path, scores: np.ndarray | None, fault: str | None, top: int | None
) -> Prediction:
    if scores is None:
        return Prediction(image=str(path), fault=fault)
    row, labels = scorer.answers.probabilities(scores[None])[0], scorer.labels
    order = np.argsort(-row, kind="stable")[: CLASSES if top is None else top]
    best = (Guess(index=int(i), label=labels[i] if labels else None, probability=float(row[i])) for i in order)
    return Prediction(image=str(path), best=tuple(best))


def _found(record: Artifact, path: Path, answer: np.ndarray, size: Size, top: int | None) -> Prediction:
    """Boxes or areas of one image of (height, width) `size`."""
    labels = record.labels
    if record.boxes is not None:
        place = placement(size, record.input.resolution, record.preprocessing)
        boxes = []
        for box in boxes_of(answer, record.boxes)[:top]:
            sides = dict(zip(("left", "top", "right", "bottom"), place.of(box.sides), strict=True))
            label = labels[box.index] if labels else None
            boxes.append(FoundBox(index=box.index, label=label, probability=box.probability, **sides))
        return Prediction(image=str(path), task="detect", boxes=tuple(boxes))
    shares = np.bincount(mask_of(answer).ravel(), minlength=answer.shape[-1]) / answer[..., 0].size
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0][:top]
    areas = (Area(index=i, label=labels[i] if labels else None, share=float(shares[i])) for i in order)
    return Prediction(image=str(path), task="segment", areas=tuple(areas))


@contextmanager
def _scorer(model: str, options: ModelOptions) -> Iterator[_Scorer]:
    from mobilezoo_export.registry import is_exported

    if is_exported(model):
        from mobilezoo_export import FileApart

        path = existing_path(model, "file")
        refuse_weights(path, options)
        record = described(path, options)
        answers, size = Answers.of_file(path, record), record.input.resolution
        proof = record.why_not_runnable if record.foreign else None
        with FileApart(path, record) as opened:
            dense = record if record.task != "classify" else None
            yield _Scorer(opened.run, answers, record.preprocessing, size, record.labels, proof, dense)
        return
    check_network(model, options)
    import torch

    from mobilezoo.workflows.load_model import load_model

    loaded = load_model(model, options)
    if loaded.random_weights:
        raise ConfigError(f"{model!r} has random weights here: pass --checkpoint PATH")

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = loaded.network(torch.from_numpy(images)).numpy()
            return answer

    yield _Scorer(run, Answers(model, "logits"), loaded.preprocessing, loaded.resolution, loaded.labels)
