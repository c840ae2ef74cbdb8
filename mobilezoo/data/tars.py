"""Images inside tar archives, by the same rule as images in folders; read from their place in the archive.

A `.tar` directly in a split (or in the archive of a split) counts as a class folder of its name, as ImageNet comes.
"""

import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from mobilezoo.data.names import is_hidden
from mobilezoo.data.scan import OUTSIDE, SPECIAL, Scan, arrange
from mobilezoo.errors import DataError

REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class Place(NamedTuple):
    """Bytes of an archive; an offset below zero where a link leads out of it."""

    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Raises OSError where the archive is gone or cut off."""
        if self.offset < 0:
            raise OSError("a link to a file that is not in the archive")
        with Path(self.archive).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError("the archive ends before the file does")
        return data


class TarSplit:
    """The files of one split: name inside the split → what it is and where it lies."""

    def __init__(self, path: Path) -> None:
        """`path`: SPLIT.tar, or a folder with a tar per class. Raises DataError for damaged archives."""
        self.path = path
        self.places: dict[str, Place] = {}
        self.kinds: dict[str, str] = {}
        if path.is_dir():
            for entry in sorted(path.iterdir()):
                self._add_entry(entry)
        else:
            self._add_members(members(path), "")
            self._unwrap(path.stem)

    def scan(self, classes: tuple[str, ...] | None = None, fewest: int = 2) -> Scan:
        """The classes and images of the archive, as by `scan_folder`.

        Args:
            classes: those of the training split; None takes the archive's own.
            fewest: classes that a split with classes of its own needs.
        """
        return arrange(str(self.path), self.kinds.items(), classes, fewest)

    def _add_entry(self, entry: Path) -> None:
        if is_hidden(entry.name):
            return
        if entry.suffix.lower() == ".tar" and entry.is_file():
            self.kinds[entry.stem] = "folder"
            self._add_members(members(entry), f"{entry.stem}/")
        else:
            self.kinds[entry.name] = OUTSIDE

    def _add_members(self, found: "Iterable[tuple[str, str, Place]]", prefix: str) -> None:
        for name, what, place in found:
            self.kinds[prefix + name] = what
            self.places[prefix + name] = place

    def _unwrap(self, name: str) -> None:
        """train.tar often holds all its classes inside one folder `train`."""
        visible = {top for top in (path.partition("/")[0] for path in self.kinds) if not is_hidden(top)}
        if visible == {name}:
            self.kinds = {k.partition("/")[2]: v for k, v in self.kinds.items() if k.startswith(f"{name}/")}
            self.places = {k.partition("/")[2]: v for k, v in self.places.items() if k.startswith(f"{name}/")}


class TarReader:
    """(bytes, class) pairs of a split for `ReadableImages`."""

    def __init__(self, split: TarSplit, samples: list[tuple[str, int]]) -> None:
        self.names = [name for name, _ in samples]
        self.targets = [target for _, target in samples]
        self.places = [split.places[name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        return io.BytesIO(self.places[index].read()), self.targets[index]

    def filename(self, index: int) -> str:
        return self.names[index]


def members(path: Path) -> Iterator[tuple[str, str, Place]]:
    """(name, what it is, where it lies) of an archive's content, archives directly inside it opened as folders.

    As when unpacking, the last of two equal names counts, and links within the archive are followed. Raises DataError.
    """
    try:
        with path.open("rb") as file:
            yield from _members(file, str(path), 0)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{str(path)!r} cannot be read as tar with images ({error})") from None


def _members(file: IO[bytes], archive: str, start: int, nested: bool = False) -> Iterator[tuple[str, str, Place]]:
    found: dict[str, tuple[str, Place]] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # a million of them would stay in memory
            name = _clean(info.name)
            place = Place(archive, start + info.offset_data, info.size)
            if not name:
                continue
            links.pop(name, None)
            if info.isdir():
                found[name] = ("folder", place)
            elif info.sparse is not None:  # holes take no room in the archive
                found[name] = (SPECIAL, place)
            elif info.type in REGULAR and not nested and "/" not in name and name.lower().endswith(".tar"):
                folder = name[:-4]
                found[folder] = ("folder", place)
                inside = tar.extractfile(info)
                assert inside is not None
                found |= {f"{folder}/{n}": (w, p) for n, w, p in _members(inside, archive, place.offset, nested=True)}
            elif info.type in REGULAR:
                found[name] = ("file", place)
            elif info.islnk() or info.issym():
                target = info.linkname if info.islnk() else posixpath.join(posixpath.dirname(name), info.linkname)
                links[name] = _clean(target)
            else:
                found[name] = (SPECIAL, place)
        _require_whole(tar, file)
    for name in links:
        what, place = found.get(_followed(name, links), ("file", Place(archive, -1, 0)))
        if what == "file":
            found[name] = (what, place)
    yield from ((name, what, place) for name, (what, place) in found.items())


def _followed(name: str, links: dict[str, str]) -> str:
    """The end of a chain of links; empty where it is a ring."""
    seen = set()
    while name in links and name not in seen:
        seen.add(name)
        name = links[name]
    return "" if name in seen else name


def _require_whole(tar: tarfile.TarFile, file: IO[bytes]) -> None:
    """tarfile takes a damaged header in the middle for the end of the archive."""
    file.seek(tar.offset)
    if file.read(512).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {tar.offset}")


def _clean(name: str) -> str:
    """`./train//cat/1.png` → `train/cat/1.png`."""
    cleaned = posixpath.normpath(name).lstrip("/")
    return "" if cleaned == "." else cleaned
