"""`mobilezoo predict`: the best classes of single images, by a network, a checkpoint or an exported file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DataError, existing_path
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size
from mobilezoo.workflows.answers import WORDS, Answers, check_labels
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import check_network, described, refuse_weights

BATCH = 16


class Guess(Record):
    """One class of an image's answer."""

    index: int
    label: str | None
    """None where the network has no class names."""
    probability: float


class Prediction(Record):
    """The best classes of one image, or why it could not be read."""

    image: str
    best: tuple[Guess, ...] = ()
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


def predict(
    model: str,
    images: list[Path],
    options: ModelOptions = NO_OPTIONS,
    *,
    top: int = 5,
    hooks: Hooks = SILENT,
) -> list[Prediction]:
    """The most probable classes of every image.

    Images are read, resized and cropped as `evaluate` does. One that cannot be read has its fault in its place.

    Args:
        model: name, YAML, checkpoint or exported file.
        images: files and folders; a folder stands for all images in it, however deep.
        options: changes to what the record or the config has.
        top: classes per image.
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
        waiting: dict[Path, np.ndarray] = {}
        for path in paths:
            try:
                waiting[path] = np.asarray(fit(pixels.read(path)))
            except BAD_IMAGE as error:
                faults[path] = " ".join(str(error).split())[:200]
            if len(waiting) == BATCH:
                scores |= _scores(scorer, waiting)
                waiting = {}
        scores |= _scores(scorer, waiting)
    if scorer.proof and scores:
        hooks.on_message(f"{model}: output: {WORDS[scorer.answers.output]}; {scorer.proof}")
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
    scores = scorer.answers.read(scorer.run(np.stack(list(waiting.values()))), len(waiting))
    check_labels(scorer.labels, scores.shape[1])
    return dict(zip(waiting, scores, strict=True))


def _prediction(scorer: _Scorer, path: Path, scores: np.ndarray | None, fault: str | None, top: int) -> Prediction:
    if scores is None:
        return Prediction(image=str(path), fault=fault)
    row, labels = scorer.answers.probabilities(scores[None])[0], scorer.labels
    order = np.argsort(-row, kind="stable")[:top]
    best = (Guess(index=int(i), label=labels[i] if labels else None, probability=float(row[i])) for i in order)
    return Prediction(image=str(path), best=tuple(best))


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
            yield _Scorer(opened.run, answers, record.preprocessing, size, record.labels, proof)
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
