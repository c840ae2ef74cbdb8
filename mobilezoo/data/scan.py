"""Classes and images of a split: one rule for folders, tars and `data check`.

A split holds class folders. The class of an image is the first folder of its path inside the split, however deep it
lies. Hidden names are nothing at all; every other file is an image or is counted among what is left out.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.data.names import class_name, extension, is_hidden, is_image, order
from mobilezoo.errors import DataError

OUTSIDE = "files outside class folders"
SPECIAL = "pipes, sockets and devices"
LOOPS = "links that lead back into their own folder"


@dataclass(frozen=True)
class Scan:
    """The classes of a split in order, and its images in order as (name inside the split, class index)."""

    classes: tuple[str, ...]
    samples: list[tuple[str, int]]
    left_out: dict[str, int]
    """Kind of file (an extension, or in words) → how many were left out."""
    faults: tuple[str, ...]
    """Why this cannot be trained on or scored; empty for a good split."""

    def checked(self) -> "Scan":
        """Itself. Raises DataError with the first fault."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more like it: see `mobilezoo data check`)" * (len(self.faults) > 1)
            raise DataError(self.faults[0] + more)
        return self


def scan_folder(folder: Path, classes: tuple[str, ...] | None = None, fewest: int = 2) -> Scan:
    """Scan a split that is a folder on disk.

    Args:
        folder: the split.
        classes: those of the training split; None takes the folder's own.
        fewest: classes that a split with classes of its own needs.

    Raises:
        DataError: a folder cannot be read; other faults are in the Scan.
    """
    return arrange(str(folder), walk(folder), classes, fewest)


def classes_of_folder(folder: Path) -> tuple[str, ...]:
    """The classes alone; looks at no more files than it must. Raises DataError where training would."""
    found: set[str] = set()

    def entries() -> Iterator[tuple[str, str]]:
        for name, what in walk(folder, lambda inside: inside.partition("/")[0] in found):
            top, slash, _ = name.partition("/")
            if what == "file" and slash and is_image(name):
                found.add(top)
            yield name, what

    return arrange(str(folder), entries()).checked().classes


def arrange(
    where: str, entries: Iterable[tuple[str, str]], classes: tuple[str, ...] | None = None, fewest: int = 2
) -> Scan:
    """Order the files of one split by the rule of this module.

    Args:
        where: the split's name in faults.
        entries: (name inside the split, what it is) pairs: `file`, `folder`, or words for what is left out.
        classes: those of the training split, of which this one may lack some; None takes the split's own.
        fewest: classes that a split with classes of its own needs.
    """
    left_out: Counter[str] = Counter()
    images: list[tuple[str, str]] = []
    folders: dict[str, Counter[str]] = {}
    for name, what in entries:
        parts = name.split("/")
        if any(map(is_hidden, parts)):
            continue
        if what == "folder" or len(parts) > 1:
            folders.setdefault(parts[0], Counter())
        if what == "folder":
            continue
        if what == "file" and len(parts) > 1 and is_image(name):
            images.append((name, parts[0]))
            folders[parts[0]]["image"] += 1
            continue
        kind = what if what != "file" else OUTSIDE if len(parts) == 1 else extension(name) or "without extension"
        left_out[kind] += 1
        if len(parts) > 1:
            folders[parts[0]][kind] += 1
    found, faults = _classes(where, folders, classes, fewest)
    names = {folder: name for name, of_class in found.items() for folder in of_class}
    ordered = classes if classes is not None else tuple(sorted(found, key=order))
    places = {name: index for index, name in enumerate(ordered)}
    samples = [(name, places[names[folder]]) for name, folder in images if folder in names and names[folder] in places]
    if not samples and not faults:
        faults.append(f"{where!r} holds no images in its {len(found)} class folders")
    return Scan(
        ordered, sorted(samples, key=lambda sample: order(sample[0])), dict(left_out.most_common()), tuple(faults)
    )


def walk(folder: Path, enough: Callable[[str], bool] = lambda _inside: False) -> Iterator[tuple[str, str]]:
    """Everything below a folder that is not hidden, links followed, as (name, what it is) pairs.

    Args:
        folder: names are relative to it, with `/`.
        enough: a folder whose name it returns True for is not looked into; called when the folder's turn comes.

    Raises:
        DataError: a folder cannot be read.
    """
    above = {"": frozenset([_identity(folder)])}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        if enough(inside):
            continue
        for name, what in _entries(folder / inside, f"{inside}/" if inside else ""):
            if what != "folder":
                yield name, what
                continue
            here = _identity(folder / name)
            if here in above[inside]:
                yield name, LOOPS
                continue
            above[name] = above[inside] | {here}
            waiting.append(name)
            yield name, what
        del above[inside]


def describe(left_out: dict[str, int], where: str) -> str:
    """One line on what was left out; empty where nothing was.

    Args:
        left_out: kind of file to number of files.
        where: the split's name.
    """
    kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    return f"{where}: left out {kinds}" if kinds else ""


def _classes(
    where: str, folders: dict[str, Counter[str]], known: tuple[str, ...] | None, fewest: int
) -> tuple[dict[str, list[str]], list[str]]:
    """Class → its folders (more than one where they differ in Unicode form only), and what is wrong with them."""
    found: dict[str, list[str]] = {}
    faults = []
    for folder in sorted(folders):
        try:
            found.setdefault(class_name(folder), []).append(folder)
        except DataError as error:
            faults.append(f"{where!r}: {error}")
    for name, of_class in sorted(found.items(), key=lambda item: order(item[0])):
        kinds = sum((folders[folder] for folder in of_class), Counter[str]())
        if known is not None and name not in known and kinds["image"]:
            faults.append(f"class {name!r} of {where!r} is none of the {len(known)} classes of the training split")
        if known is None and not kinds["image"]:
            others = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            inside = f" ({others} in it)" if others else ""
            faults.append(f"class folder {name!r} of {where!r} holds no images{inside}: add some, or remove it")
    if known is None and len(found) < fewest and not faults:
        least = "two are" if fewest > 1 else "one is"
        faults.append(f"{where!r} holds {len(found)} class folder(s): at least {least} needed, one per class")
    return found, faults


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """What lies directly in a folder."""
    try:
        with os.scandir(folder) as inside:
            entries = [entry for entry in inside if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"folder {str(folder)!r} cannot be read ({error.strerror}): mend it, or take it out") from None
    for entry in entries:
        yield prefix + entry.name, _kind(entry)


def _kind(entry: "os.DirEntry[str]") -> str:
    """The kind of a directory entry, links followed; a link to nowhere is a file: reading it gives the reason."""
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file():
            entry.stat()  # fails where a link leads nowhere
            return SPECIAL
    except OSError:
        pass
    return "file"


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino
