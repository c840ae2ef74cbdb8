"""`mobilezoo data check`: broken files, the same image in two splits, classes of very unequal size.

Classes and images are those of training, by the rule of `scan`. Every image is decoded once, as training does, and
hashed; what was found is kept in an index beside the data, so that a second check only reads what is new or changed.
"""

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from mobilezoo.config import Record
from mobilezoo.data.names import is_hidden, split_names
from mobilezoo.data.pixels import BAD_IMAGE, Pixels
from mobilezoo.data.scan import Scan, scan_folder
from mobilezoo.data.tars import Place, TarSplit
from mobilezoo.errors import DataError, MobilezooError, wrong_kind
from mobilezoo.files import write_text
from mobilezoo.reading import read_json
from mobilezoo.workers import end_with_parent

INDEX_NAME = ".mobilezoo-index.json"
FOLDER, TAR = "folder:", "tar:"
INDEX_SCHEMA = 2
"""Rises when another rule decides which images are readable."""
UNEVEN = 10.0
"""A split is reported as uneven from this ratio of its largest to its smallest class on."""


class Entry(Record):
    """One file of the index."""

    size: int
    mtime_ns: int
    sha256: str = ""
    width: int = 0
    height: int = 0
    fault: str = ""
    """Why it cannot be read; empty for a good file."""


class Split(Record):
    """One split."""

    images: int
    classes: int
    class_names: tuple[str, ...] = Field(description="in the order that training gives them")
    left_out: dict[str, int] = Field(description="kind of file → how many are no images for training")
    smallest_class: str
    smallest: int
    largest_class: str
    largest: int

    @property
    def imbalance(self) -> float:
        return self.largest / max(self.smallest, 1)


class DataReport(Record):
    """What a check found; paths are relative to the data's folder."""

    schema_version: int = 1
    root: str
    splits: dict[str, Split]
    broken: dict[str, str] = Field(description="path → why")
    faults: tuple[str, ...] = Field(description="why training or eval would refuse a split")
    leaks: tuple[tuple[str, ...], ...] = Field(description="groups of equal files that lie in more than one split")
    repeats: tuple[tuple[str, ...], ...] = Field(description="groups of equal files within one split")
    missing_classes: dict[str, tuple[str, ...]] = Field(description="split → classes that another split has")
    read: int = Field(description="files decoded now; the others came from the index")

    @property
    def uneven(self) -> tuple[str, ...]:
        return tuple(name for name, split in self.splits.items() if split.imbalance >= UNEVEN)

    @property
    def clean(self) -> bool:
        return not (self.faults or self.broken or self.leaks or self.missing_classes)


class Job(NamedTuple):
    """An image to read: a file, or a place in an archive."""

    path: str
    size: int
    mtime_ns: int
    place: Place | None = None

    def read(self) -> bytes:
        return self.place.read() if self.place else Path(self.path).read_bytes()


class Found(NamedTuple):
    """One split: its scan, and how each of its images is read."""

    scan: Scan
    job: Callable[[str], Job]


def check_data(
    source: str,
    workers: int = 2,
    track: Callable[[Iterable[Entry], int], Iterable[Entry]] | None = None,
    train_split: str = "train",
) -> DataReport:
    """Check every image, class and split of a folder or archive.

    Writes the index into the folder; where that is not writable the next check is only slower.

    Args:
        source: PATH, `folder:PATH` or `tar:PATH` that holds the splits.
        workers: processes that decode.
        track: `track(entries, total)` wraps the entries as they are read, to show progress.
        train_split: name of the split whose classes the others must have.

    Raises:
        DataError: there is no folder, or none with splits and classes in it.
    """
    root = Path(source.removeprefix(FOLDER).removeprefix(TAR)).expanduser()
    splits = _splits(root, source.startswith(TAR), train_split)
    index = _read_index(root)
    jobs = {f"{s}/{name}": found.job(name) for s, found in splits.items() for name, _ in found.scan.samples}
    stale = [n for n, job in jobs.items() if n not in index or (index[n].size, index[n].mtime_ns) != job[1:3]]
    with ProcessPoolExecutor(max(1, workers), initializer=end_with_parent) as pool:
        read: Iterable[Entry] = pool.map(inspect, [jobs[name] for name in stale], chunksize=32)
        read = track(read, len(stale)) if track else read
        fresh = dict(zip(stale, read, strict=True))
    entries = {name: fresh.get(name) or index[name] for name in jobs}
    _write_index(root, entries)
    return _report(root, splits, entries, len(stale))


def inspect(job: Job) -> Entry:
    """Decode and hash one file."""
    entry = Entry(size=job.size, mtime_ns=job.mtime_ns)
    try:
        data = job.read()
        size = Pixels().read(io.BytesIO(data)).size
    except BAD_IMAGE as error:
        return entry.model_copy(update={"fault": " ".join(str(error).replace(job.path, "file").split())[:200]})
    return entry.model_copy(update={"sha256": hashlib.sha256(data).hexdigest(), "width": size[0], "height": size[1]})


def _splits(root: Path, in_tars: bool, train_split: str) -> dict[str, Found]:
    """The splits by name, all with the classes of the training split where there is one."""
    if not root.is_dir():
        raise DataError(wrong_kind(root, "dataset folder", folder=True))
    places = {p.stem if p.is_file() else p.name: p for p in sorted(root.iterdir()) if _is_split(p, in_tars)}
    training = places.get(train_split)
    fit = _found(training, in_tars, None, fewest=2) if training is not None else None
    classes = fit.scan.classes if fit is not None else None
    found = {
        name: fit if fit is not None and p == training else _found(p, in_tars, classes) for name, p in places.items()
    }
    known = (train_split, "train", *split_names("validation"))
    found = {name: split for name, split in found.items() if split.scan.samples or name in known}
    if not any(split.scan.samples for split in found.values()):
        inside = next((f": {f.scan.faults[0]}" for f in found.values() if f.scan.faults), "")
        raise DataError(f"{str(root)!r} holds no files as SPLIT/CLASS/IMAGE, for example train/cat/1.jpg{inside}")
    return found


def _is_split(path: Path, in_tars: bool) -> bool:
    return not is_hidden(path.name) and (path.is_dir() or (in_tars and path.suffix.lower() == ".tar"))


def _found(place: Path, in_tars: bool, classes: tuple[str, ...] | None, fewest: int = 1) -> Found:
    if not in_tars:
        return Found(scan_folder(place, classes, fewest), lambda name: _file_job(place / name))
    archive = TarSplit(place)
    return Found(archive.scan(classes, fewest), lambda name: _place_job(archive.places[name]))


def _file_job(path: Path) -> Job:
    try:
        state = path.stat()
    except OSError:  # a link to nowhere: reading it gives the reason
        return Job(str(path), 0, 0)
    return Job(str(path), state.st_size, state.st_mtime_ns)


def _place_job(place: Place) -> Job:
    changed = Path(place.archive).stat().st_mtime_ns
    return Job(place.archive, place.size, changed, place)


def _read_index(root: Path) -> dict[str, Entry]:
    """The kept index; nothing where there is none or it is damaged: it can be made again."""
    try:
        content = read_json(root / INDEX_NAME)
        if content["schema_version"] != INDEX_SCHEMA:
            return {}
        return {name: Entry.parse(entry, name) for name, entry in content["files"].items()}
    except (KeyError, TypeError, AttributeError, MobilezooError):
        return {}


def _write_index(root: Path, entries: dict[str, Entry]) -> None:
    content = {"schema_version": INDEX_SCHEMA, "files": {name: entry.model_dump() for name, entry in entries.items()}}
    try:
        write_text(root / INDEX_NAME, json.dumps(content) + "\n")
    except MobilezooError:  # read-only data
        return


def _report(root: Path, splits: dict[str, Found], entries: dict[str, Entry], read: int) -> DataReport:
    good = {name: entry for name, entry in entries.items() if not entry.fault}
    counts = {
        split: Counter(found.scan.classes[c] for name, c in found.scan.samples if f"{split}/{name}" in good)
        for split, found in splits.items()
    }
    by_content: dict[str, list[str]] = defaultdict(list)
    for name, entry in good.items():
        by_content[entry.sha256].append(name)
    equal = [tuple(names) for names in by_content.values() if len(names) > 1]
    across = [names for names in equal if len({name.split("/")[0] for name in names}) > 1]
    every = {label for of_split in counts.values() for label in of_split}
    return DataReport(
        root=str(root),
        splits={name: _split(of_split, splits[name].scan) for name, of_split in sorted(counts.items())},
        broken={name: entry.fault for name, entry in entries.items() if entry.fault},
        faults=tuple(fault for found in splits.values() for fault in found.scan.faults),
        leaks=tuple(across),
        repeats=tuple(names for names in equal if names not in across),
        missing_classes={
            name: tuple(sorted(every - set(of_split)))
            for name, of_split in sorted(counts.items())
            if every - set(of_split)
        },
        read=read,
    )


def _split(counts: Counter[str], scan: Scan) -> Split:
    ordered = counts.most_common() or [("", 0)]
    (largest_class, largest), (smallest_class, smallest) = ordered[0], ordered[-1]
    return Split(
        images=counts.total(),
        classes=len(counts),
        class_names=scan.classes,
        left_out=scan.left_out,
        smallest_class=smallest_class,
        smallest=smallest,
        largest_class=largest_class,
        largest=largest,
    )
