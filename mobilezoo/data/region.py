"""The region decoder: `region.c`, compiled against libjpeg-turbo by the machine's C compiler when it is first used.

Optional. Where compiler, header or library are missing, `unavailable()` returns the reason, and training with
`data.decoder=region` stops with the same line.
"""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np

from mobilezoo.errors import DataError, MobilezooError
from mobilezoo.files import atomic_write, sha256_of

SOURCE = Path(__file__).with_name("region.c")
FAULTS = {1: "not decodable as JPEG", 2: "CMYK colors", 3: "out of memory"}


class RegionDecoder:
    """Crops of JPEG files straight into places of a batch; releases the interpreter lock while it works."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        self._library.region_size.argtypes = [ctypes.c_char_p, ctypes.c_ulong, pointer, pointer]
        self._library.region_decode.argtypes = [ctypes.c_char_p, ctypes.c_ulong, *[integer] * 8, pointer]

    def size(self, data: bytes) -> tuple[int, int]:
        """(width, height) in pixels. Raises DataError."""
        width, height = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.region_size(data, len(data), ctypes.byref(width), ctypes.byref(height)))
        return width.value, height.value

    def decode(self, data: bytes, crop: tuple[int, int, int, int], flip: bool, bicubic: bool, out: np.ndarray) -> None:
        """Fill `out` with the crop, resized as PIL would.

        Args:
            data: the whole JPEG file.
            crop: (top, left, height, width) in pixels of the whole image.
            flip: mirror it left to right.
            bicubic: resize by bicubic interpolation, else bilinear.
            out: (H, W, 3) uint8, C-contiguous.

        Raises:
            DataError: the file is damaged, or its colors are CMYK.
        """
        top, left, height, width = crop
        place = out.ctypes.data
        assert out.flags.c_contiguous
        assert out.dtype == np.uint8
        tall, wide = out.shape[:2]
        decode = self._library.region_decode
        self._check(decode(data, len(data), left, top, width, height, tall, wide, flip, bicubic, place))

    def _check(self, result: int) -> None:
        if result:
            raise DataError(FAULTS.get(result, f"error {result}"))


@functools.cache
def region_decoder() -> RegionDecoder:
    """The decoder, compiled into the user's cache folder where it is not there yet. Raises MobilezooError with why."""
    compiler = next((c for c in (os.environ.get("CC", ""), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        raise MobilezooError("the region decoder needs a C compiler: install gcc, or set data.decoder=wheels")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilezoo"
    library = cache / f"region-{sha256_of(SOURCE)[:12]}-{platform.machine()}-{_processor()}.so"
    if not library.exists():
        atomic_write(library, lambda temporary: _compile(compiler, temporary))
    try:
        return RegionDecoder(library)
    except OSError as error:
        raise MobilezooError(f"the region decoder cannot be loaded ({error}): set data.decoder=wheels") from None


def unavailable() -> str | None:
    """Why there is no region decoder here; None where there is one."""
    try:
        region_decoder()
    except MobilezooError as error:
        return str(error)
    return None


def _compile(compiler: str, target: Path) -> None:
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(target), str(SOURCE), "-ljpeg", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line or "cannot find" in line]
        raise MobilezooError(
            f"the region decoder does not compile ({(lines or ['no reason given'])[0].strip()}): "
            "install libjpeg-turbo with its header (libjpeg62-turbo-dev), or set data.decoder=wheels"
        )


def _processor() -> str:
    """Names the instruction set that `-march=native` compiled for: a cache may be shared by unlike machines."""
    import hashlib

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "cpu"
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:8]
