"""Properties of a path that follow from its names: hidden or not, image or not, its class, its place in the order.

All of it is a function of the names alone, so that every machine and every process sees the same classes and images.
"""

import re
import unicodedata

from mobilezoo.errors import DataError

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "TGA": (".tga",),
    "QOI": (".qoi",),
    "PCX": (".pcx",),
    "SGI": (".sgi",),
}
"""Formats that are read, by PIL's names, and the extensions that announce an image. What PIL reads by starting another
program (EPS) is left out, as are containers of several unlike images (ICO, PSD)."""
EXTENSIONS = frozenset(extension for of_format in FORMATS.values() for extension in of_format)
SYSTEM = frozenset(
    name.casefold()
    for name in (
        "__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "lost+found", "$RECYCLE.BIN",
        "RECYCLER", "System Volume Information", "Network Trash Folder", "Temporary Items", "__pycache__",
        "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "Icon\r",
    )
)  # fmt: skip
"""Folders and files that systems and tools leave everywhere."""
Order = tuple[list[str | int], str, str]


def is_hidden(name: str) -> bool:
    """Whether a folder or file (one part of a path) is no data: dot names, and what systems leave behind."""
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM


def is_image(name: str) -> bool:
    """Whether a file announces itself as an image that is read here."""
    return extension(name) in EXTENSIONS


def extension(name: str) -> str:
    """`a/b.JPG` → `.jpg`; empty where there is none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def class_name(folder: str) -> str:
    """The class of a folder's name: composed Unicode, as macOS and Linux write it differently. Raises DataError."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise DataError(f"class folder {folder!r} is not valid UTF-8: rename it") from None
    name = unicodedata.normalize("NFC", folder)
    if not name.isprintable() or name != name.strip():
        raise DataError(f"class folder {folder!r} has a control character or a space at its ends: rename it")
    return name


def order(name: str) -> Order:
    """Sort key: timm's natural order (numbers by value, case ignored), and by the exact name where that ties."""
    composed = unicodedata.normalize("NFC", name)
    parts = re.split(r"(\d+)", composed.lower())
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], composed, name


def split_names(split: str) -> tuple[str, ...]:
    """Where a split may lie: validation images are called many things."""
    return (split, *(("val", "valid", "test") if split == "validation" else ()))
