"""The one reader of files with tensors that anybody made; nothing in them runs or grows beyond the file.

`.safetensors`, and both layouts of torch.save: a zip archive of a pickle and raw storages, and the older row of pickles
with the storages behind them. What a file declares is compared with the bytes that are there before memory is taken.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mobilezoo.errors import CheckpointError, first_line, printable, shortened
from mobilezoo.models.tensor_names import Kind, MalformedError, RefusedNameError
from mobilezoo.models.tensor_pickle import MAX_BYTES, Reader, Source

MAX_DIRECTORY = 1 << 24
"""Bytes of an archive's directory or of a safetensors header: a thousand tensors take about 100 KB."""
MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older layout."""
LOCAL = struct.Struct("<4s22xHH")
"""Header of a zip entry: signature, and the lengths of its name and extra fields."""
DAMAGED = (
    *(SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, struct.error, pickle.UnpicklingError),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError),
)
"""What readers raise on bytes that are no weights."""


def read_content(path: Path) -> Any:
    """What a .safetensors, .pth, .pt, .pth.tar, .ckpt or .bin file holds, on the CPU. Raises CheckpointError.

    Tensors that are sparse, quantized or without values come as meta tensors, plain values of other classes as objects
    without content.
    """
    try:
        with _Sparing(io.FileIO(path)) as file:
            if path.suffix == ".safetensors":
                return _read_safetensors(path, file)
            return _read_zip(file) if file.peek(4)[:4] == b"PK\3\4" else _read_row(file)
    except RefusedNameError as error:
        raise CheckpointError(
            f"{str(path)!r} holds more than weights ({_shown(str(error))}) and loading it could run code: "
            "ask its author for safetensors or a plain state dict"
        ) from None
    except DAMAGED as error:
        raise CheckpointError(f"{str(path)!r} is damaged or no checkpoint: {first_line(error)}") from None


class _Sparing(io.BufferedReader):
    """A file from which nobody takes much at once; storages are read into memory that was counted before."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self.size - self.tell() if size is None or size < 0 else size
        if wanted > MAX_DIRECTORY:
            raise MalformedError(f"a directory or text of {wanted:,} bytes")
        return super().read(wanted)


def _read_safetensors(path: Path, file: _Sparing) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_DIRECTORY, file.size - 8):
        raise MalformedError(f"a header of {length:,} bytes in a file of {file.size:,}")
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_zip(file: _Sparing) -> Any:
    with zipfile.ZipFile(file) as archive:
        listed = archive.infolist()
    entries = {entry.filename: entry for entry in listed}
    folder = next(iter(entries), "").partition("/")[0]
    if f"{folder}/constants.pkl" in entries:
        raise MalformedError("a TorchScript program: save its state_dict")
    if f"{folder}/data.pkl" not in entries:
        raise MalformedError("a zip archive that torch.save did not write")
    _check_entries(listed, file.size)
    order = entries.get(f"{folder}/byteorder")
    if order is not None and bytes(_entry(file, order).tolist()) != b"little":
        raise MalformedError("written on a big-endian machine")
    found: dict[str, Tensor] = {}

    def storage(key: str, kind: Kind, elements: int) -> Tensor:
        if key not in found:
            found[key] = _entry(file, entries[f"{folder}/data/{key}"])
        _check_size(key, found[key].numel(), kind, elements)
        return found[key]

    pickled = entries[f"{folder}/data.pkl"]
    if pickled.file_size > MAX_BYTES:
        raise MalformedError(f"a pickle of {pickled.file_size:,} bytes beside the tensors")
    return Reader(Source(io.BytesIO(_entry(file, pickled).numpy().data)), storage).load()


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Stored as they are, once each, and no larger together than the file."""
    packed = next((e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1), None)
    if packed is not None:
        raise MalformedError(f"{packed!r} in it is compressed or encrypted, which torch.save never does")
    total = sum(entry.file_size for entry in entries)
    if len({entry.filename for entry in entries}) < len(entries) or total > size:
        raise MalformedError(f"{len(entries)} entries of {total:,} bytes, in part the same, in a file of {size:,}")


def _start(file: _Sparing, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin; checksums are not compared, as torch.save may leave them out."""
    file.seek(entry.header_offset)
    signature, name, extra = LOCAL.unpack(file.read(LOCAL.size))
    if signature != b"PK\3\4":
        raise MalformedError(f"no entry where {entry.filename!r} should begin")
    return entry.header_offset + LOCAL.size + int(name) + int(extra)


def _entry(file: _Sparing, entry: zipfile.ZipInfo) -> Tensor:
    """uint8 [bytes]."""
    file.seek(_start(file, entry))
    data = torch.empty(entry.file_size, dtype=torch.uint8)
    _fill(file, data)
    return data


def _fill(file: _Sparing, data: Tensor) -> None:
    if data.numel() and file.readinto(data.numpy().data) < data.numel():
        raise EOFError("ends in the middle of a storage")


def _check_size(key: str, found: int, kind: Kind, elements: int) -> None:
    if found != elements * kind.element_bytes:
        raise MalformedError(f"storage {key!r} declares {elements:,} elements and has {found:,} bytes")


def _read_row(file: _Sparing) -> Any:
    """Magic number, version, system, content, keys: a pickle each; then every storage behind its number of elements."""
    source, found, kinds = Source(file), dict[str, Tensor](), dict[str, Kind]()
    if Reader(source, _none).load() != MAGIC:
        raise MalformedError("not written by torch.save")
    version, system = Reader(source, _none).load(), Reader(source, _none).load()
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise MalformedError("written by another torch, or on a big-endian machine")
    left = file.size

    def storage(key: str, kind: Kind, elements: int) -> Tensor:
        nonlocal left
        if key not in found:
            left -= elements * kind.element_bytes
            if left < 0:
                raise MalformedError(f"storages of more bytes than the file's {file.size:,}")
            found[key] = torch.empty(elements * kind.element_bytes, dtype=torch.uint8)
            kinds[key] = kind
        _check_size(key, found[key].numel(), kind, elements)
        return found[key]

    content, keys = Reader(source, storage).load(), Reader(source, _none).load()
    if not isinstance(keys, list) or len(keys) != len(found):
        raise MalformedError("not all of its storages are there")
    for key in keys:
        elements = int.from_bytes(file.read(8), "little")
        _check_size(key, found[key].numel(), kinds[key], elements)
        _fill(file, found.pop(key))
    return content


def _none(key: str, kind: Kind, elements: int) -> Tensor:
    raise MalformedError("a storage where none can be")


def _shown(text: str) -> str:
    """Text of a file, fit for a terminal."""
    return shortened(printable(text), 300)
