"""Sample images of the page that `mobilezoo try` serves: pixels as evaluation reads them, as PNGs, with their class."""

import io
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mobilezoo.artifacts import Artifact, Checkpoint, has_record, read_record_of
from mobilezoo.data.config import DataConfig, named_data
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.open_file import NOUNS


class Samples(NamedTuple):
    """Images of a data set, and names of the outputs where --classes has them."""

    listed: list[dict[str, Any]]
    """url and truth (index, label) of each."""
    images: dict[str, bytes]
    """url → PNG."""
    names: tuple[str, ...] = ()


def samples_of(
    path: Path, record: Artifact, data: str | None, classes: str | None, count: int, hooks: Hooks
) -> Samples:
    """Take images from the validation split, evenly over all of it.

    Args:
        path: the exported file.
        record: its record.
        data: source; None takes the recorded one, and no samples where that cannot be opened.
        classes: as for `evaluate`.
        count: number of images; 0: none.
        hooks: receives messages.

    Raises:
        MobilezooError: the named source cannot be opened, or its classes and the outputs do not agree.
    """
    if record.task != "classify":
        if data or classes:
            raise ConfigError(
                f"{path.name!r} answers with {NOUNS[record.task]}: --data and --classes are for classifiers"
            )
        return Samples([], {})
    source = _source(path, record, data)
    if source is None or count == 0:
        names = _names(path, record, classes, _outputs(path, record)) if classes else ()
        return Samples([], {}, names)
    try:
        return _taken(path, record, source, classes, count, hooks)
    except MobilezooError as error:
        if data is not None:
            raise
        hooks.on_message(f"no samples of {source.source}: {error}")
        return Samples([], {})


def _taken(path: Path, record: Artifact, source: DataConfig, classes: str | None, count: int, hooks: Hooks) -> Samples:
    from mobilezoo.data import open_data
    from mobilezoo.data.classes import place_classes

    split = open_data(source, train=False)
    split.set_channels(record.preprocessing.channels)
    outputs = _outputs(path, record)
    places = place_classes(split.labels, outputs, record.labels, classes, path.name)
    if places.note:
        hooks.on_message(places.note)
    names = _names(path, record, classes, outputs)
    shown = record.labels or names
    listed: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    for number, (image, target) in enumerate(_spread(split.dataset, count)):
        url, index = f"sample{number}.png", places.outputs[target]
        written = io.BytesIO()
        image.save(written, "PNG", compress_level=1)
        images[url] = written.getvalue()
        label = shown[index] if shown else split.labels[target] if split.labels else f"class {index}"
        listed.append({"url": url, "truth": {"index": index, "label": label}})
    return Samples(listed, images, names)


def _spread(dataset: Any, count: int) -> Any:
    """Items evenly over a data set, or the first ones of a stream."""
    if not hasattr(dataset, "__getitem__"):
        return islice(dataset, count)
    total = len(dataset)
    taken = min(count, total)
    return (dataset[i * total // taken] for i in range(taken))


def _source(path: Path, record: Artifact, data: str | None) -> DataConfig | None:
    recorded: DataConfig | None = None
    if record.checkpoint:
        weights = (path.parent / record.checkpoint).resolve()
        if weights.is_file() and has_record(weights):
            kept = read_record_of(Checkpoint, weights).data
            recorded = DataConfig.parse(kept, str(weights)) if kept else None
    return named_data(data, recorded) if data is not None else recorded


def _outputs(path: Path, record: Artifact) -> int:
    """Number of the file's outputs; a file without labels is run once to count them."""
    if record.labels:
        return len(record.labels)
    import numpy as np

    from mobilezoo.workflows.answers import Answers
    from mobilezoo_export import FileApart

    with FileApart(path, record) as opened:
        blank = np.zeros((1, record.preprocessing.channels, *record.input.resolution), np.float32)
        return Answers.of_file(path, record).read(opened.run(blank), 1).shape[1]


def _names(path: Path, record: Artifact, classes: str | None, outputs: int) -> tuple[str, ...]:
    """Names of the outputs where --classes is a list of names, and the file has none of its own."""
    from mobilezoo.data.class_lists import imagenet_words

    if record.labels or classes is None or not classes.lower().startswith("imagenet"):
        return ()
    try:
        return imagenet_words(classes, outputs)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
