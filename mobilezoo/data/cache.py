"""Small copies of training images on a fast disk: the short side at 256 pixels, a tenth of the bytes of a photograph.

Opt-in (`data.cache`), for folders on slow disks. A copy is made when its image is first read and whole or absent, so
any number of loader processes and machines may fill one cache. Crops of less than about a quarter of the image are
then enlarged instead of cut from the full resolution; validation reads the originals.
"""

import hashlib
import io
import os
from pathlib import Path

from PIL import Image

from mobilezoo.data.pixels import Pixels, has_alpha, readable_formats
from mobilezoo.files import atomic_write

SIDE, QUALITY = 256, 90


class SmallCopies:
    """Path of an image → path of its small copy. Raises what PIL raises for damaged images, and MobilezooError."""

    def __init__(self, folder: Path, pixels: Pixels | None = None) -> None:
        self.folder, self.pixels = folder.expanduser(), pixels or Pixels()

    def __call__(self, path: str) -> str:
        """The copy's path, made now if there is none of this very file (same path, size and time of change)."""
        original = Path(path)
        state = original.stat()
        identity = f"{original.resolve()}|{state.st_size}|{state.st_mtime_ns}|{SIDE}|{QUALITY}|{self.pixels}"
        key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
        copy = self.folder / key[:2] / f"{key}.jpg"
        if not copy.exists():
            data = self._small(original)
            atomic_write(copy, lambda temporary: _write(temporary, data))
        return str(copy)

    def _small(self, original: Path) -> bytes:
        """JPEG with the short side at SIDE; what is small already, in pixels or bytes, or transparent, stays."""
        with Image.open(original, formats=readable_formats()) as image:
            width, height = image.size
            factor = SIDE / min(width, height)
            if factor >= 1 or (self.pixels.channels == 4 and has_alpha(image)):
                image.load()  # a damaged one must be found here
                return original.read_bytes()
            image.draft(None, (round(2 * width * factor), round(2 * height * factor)))
            upright = self.pixels.convert(image)
        factor = SIDE / min(upright.size)
        size = max(SIDE, round(upright.width * factor)), max(SIDE, round(upright.height * factor))
        out = io.BytesIO()
        small = upright.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        small.save(out, "JPEG", quality=QUALITY)
        return out.getvalue() if out.tell() < original.stat().st_size else original.read_bytes()

    def size(self) -> tuple[int, int]:
        """(images, bytes) kept so far; looks at every file."""
        sizes = [p.stat().st_size for p in self.folder.glob("??/*.jpg")]
        return len(sizes), sum(sizes)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
