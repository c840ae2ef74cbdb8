"""`mobilezoo data check`: broken files, the same image in two splits, classes of very unequal size.

Every file is decoded once and hashed; what was found is kept in an index beside the data, so that a second check only
reads files that are new or changed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from mobilezoo.artifacts import write_text
from mobilezoo.config import Record
from mobilezoo.errors import DataError, MobilezooError

INDEX_NAME = ".mobilezoo-index.json"
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
UNEVEN = 10.0
"""Largest over smallest class of a split from which on it is told."""


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
    not_images: tuple[str, ...]
    leaks: tuple[tuple[str, ...], ...] = Field(description="groups of equal files that lie in more than one split")
    repeats: tuple[tuple[str, ...], ...] = Field(description="groups of equal files within one split")
    missing_classes: dict[str, tuple[str, ...]] = Field(description="split → classes that another split has")
    read: int = Field(description="files decoded now; the others came from the index")

    @property
    def uneven(self) -> tuple[str, ...]:
        return tuple(name for name, split in self.splits.items() if split.imbalance >= UNEVEN)

    @property
    def clean(self) -> bool:
        return not (self.broken or self.leaks or self.missing_classes)


class Job(NamedTuple):
    """A file to read."""

    path: str
    size: int
    mtime_ns: int


def check_folder(
    root: Path, workers: int = 2, progress: Callable[[Iterable[Entry], int], Iterable[Entry]] | None = None
) -> DataReport:
    """Check a folder in ImageNet layout (split/class/image). `progress(entries, total)` wraps what is being read.

    Writes the index into the folder; where that is not writable the check is only slower the next time. Raises
    DataError for a folder without splits and classes.
    """
    files = _files(root)
    index = _read_index(root)
    jobs = {name: Job(str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items()}
    stale = [n for n, job in jobs.items() if n not in index or (index[n].size, index[n].mtime_ns) != job[1:]]
    with ProcessPoolExecutor(max(1, workers)) as pool:
        found: Iterable[Entry] = pool.map(inspect, [jobs[name] for name in stale], chunksize=32)
        found = progress(found, len(stale)) if progress else found
        fresh = dict(zip(stale, found, strict=True))
    entries = {name: fresh.get(name) or index[name] for name in jobs}
    _write_index(root, entries)
    return _report(root, entries, len(stale))


def inspect(job: Job) -> Entry:
    """Decode and hash one file."""
    from PIL import Image, UnidentifiedImageError

    entry = Entry(size=job.size, mtime_ns=job.mtime_ns)
    try:
        data = Path(job.path).read_bytes()
        with Image.open(job.path) as image:
            image.load()
            size = image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return entry.model_copy(update={"fault": " ".join(str(error).replace(job.path, "file").split())[:200]})
    return entry.model_copy(update={"sha256": hashlib.sha256(data).hexdigest(), "width": size[0], "height": size[1]})


def _files(root: Path) -> dict[str, Path]:
    """Relative name → path of every file in split/class folders."""
    if not root.is_dir():
        raise DataError(f"dataset folder not found: {str(root)!r}")
    found = {p.relative_to(root).as_posix(): p for p in sorted(root.glob("*/*/**/*")) if p.is_file()}
    if not found:
        raise DataError(f"{str(root)!r} holds no files as SPLIT/CLASS/IMAGE, for example train/cat/1.jpg")
    return found


def _read_index(root: Path) -> dict[str, Entry]:
    """The kept index; nothing where there is none or it is damaged: it can be made again."""
    try:
        content = json.loads((root / INDEX_NAME).read_text(encoding="utf-8"))
        return {name: Entry.parse(entry, name) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MobilezooError):
        return {}


def _write_index(root: Path, entries: dict[str, Entry]) -> None:
    content = {"schema_version": 1, "files": {name: entry.model_dump() for name, entry in entries.items()}}
    try:
        write_text(root / INDEX_NAME, json.dumps(content) + "\n")
    except MobilezooError:  # read-only data
        return


def _report(root: Path, entries: dict[str, Entry], read: int) -> DataReport:
    images = {name: entry for name, entry in entries.items() if name.lower().endswith(IMAGES)}
    good = {name: entry for name, entry in images.items() if not entry.fault}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name in good:
        split, label, *_ = name.split("/")
        counts[split][label] += 1
    by_content: dict[str, list[str]] = defaultdict(list)
    for name, entry in good.items():
        by_content[entry.sha256].append(name)
    equal = [tuple(names) for names in by_content.values() if len(names) > 1]
    across = [names for names in equal if len({name.split("/")[0] for name in names}) > 1]
    every = {label for of_split in counts.values() for label in of_split}
    return DataReport(
        root=str(root),
        splits={name: _split(of_split) for name, of_split in sorted(counts.items())},
        broken={name: entry.fault for name, entry in images.items() if entry.fault},
        not_images=tuple(name for name in entries if name not in images),
        leaks=tuple(across),
        repeats=tuple(names for names in equal if names not in across),
        missing_classes={
            name: tuple(sorted(every - set(of_split)))
            for name, of_split in sorted(counts.items())
            if every - set(of_split)
        },
        read=read,
    )


def _split(counts: Counter[str]) -> Split:
    ordered = counts.most_common()
    (largest_class, largest), (smallest_class, smallest) = ordered[0], ordered[-1]
    return Split(
        images=counts.total(),
        classes=len(counts),
        smallest_class=smallest_class,
        smallest=smallest,
        largest_class=largest_class,
        largest=largest,
    )
