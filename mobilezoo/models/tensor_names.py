"""What the names in a file of tensors stand for: views of its storages, or nothing; none of them is ever imported."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 20
"""So many elements may a tensor have beyond its storage, by repeating them (an expanded table of positions)."""
LARGEST = 1 << 48
MAX_DIMS = 64


class MalformedError(ValueError):
    """Content that no file of weights has."""


class RefusedNameError(MalformedError):
    """A name that stands for more than weights."""


@dataclass(frozen=True)
class Storage:
    """A row of bytes, and the dtype in which a typed storage is read."""

    data: Tensor
    """uint8 [bytes]"""
    dtype: torch.dtype | None
    """None where the tensor carries it."""


@dataclass(frozen=True)
class Kind:
    """A class of storages; of one kind or another, sizes are counted in elements."""

    dtype: torch.dtype | None
    element_bytes: int


@dataclass(frozen=True)
class Known:
    """What a pickle may call."""

    call: Callable[..., Any]


class Opaque:
    """In place of a plain value that is no weight: options, scores, numpy scalars."""


def named(name: str) -> Any:
    """What a name in a pickle stands for. Raises RefusedNameError."""
    module, _, last = name.rpartition(".")
    if name in KNOWN:
        return KNOWN[name]
    if module in ("torch", "torch.cuda", "torch.storage") and last in KINDS:
        return KINDS[last]
    if module in ("torch", "torch.cuda") and (last == "Tensor" or f"{last.removesuffix('Tensor')}Storage" in KINDS):
        return _OPAQUE
    if name in HARMLESS or (module == "numpy.dtypes" and last.endswith("DType")):
        return _OPAQUE
    value = getattr(torch, last, None) if module == "torch" else None
    if isinstance(value, torch.dtype | torch.layout | torch.qscheme | torch.memory_format):
        return value
    raise RefusedNameError(name)


def call(called: Any, args: Any) -> Any:
    """Call what a pickle calls, if it is one of the known functions.

    Args:
        called: what `named` returned.
        args: tuple of arguments from the pickle.

    Raises:
        MalformedError: anything else is called, or without a tuple.
    """
    if type(called) is not Known or type(args) is not tuple:
        raise MalformedError("calls something that is no function")
    return called.call(*args)


def whole(number: Any) -> int:
    """A size, stride or offset."""
    if type(number) is not int or not 0 <= number < LARGEST:
        raise MalformedError("a size that is no whole number, or negative, or beyond any memory")
    return number


def key_of(key: Any) -> Any:
    """A key that is quickly hashed: a tuple of tuples of tuples takes hours."""
    plain = (str, int, float, bytes, bool, type(None))
    if not isinstance(key, plain) and not (type(key) is tuple and all(isinstance(part, plain) for part in key)):
        raise MalformedError(f"a dictionary with a key of type {type(key).__name__}")
    if isinstance(key, int) and abs(key) >= 1 << 63:
        raise MalformedError("a dictionary with a key of more than 64 bits")
    return key


def part_of(data: Tensor, kind: Kind, view: Any) -> Tensor:
    """Cut out a storage that old versions of torch wrote as part of another.

    Args:
        data: uint8 [bytes], the whole storage.
        kind: its class, which sets the bytes per element.
        view: (key, first element, elements), or None for the whole.

    Raises:
        MalformedError: the part is none, or beyond the storage.
    """
    if view is None:
        return data
    if type(view) is not tuple or len(view) != 3:
        raise MalformedError("refers to a part of a storage that is none")
    start, end = whole(view[1]) * kind.element_bytes, (whole(view[1]) + whole(view[2])) * kind.element_bytes
    if end > data.numel():
        raise MalformedError("refers to a part beyond its storage")
    return data[start:end]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """A view of a storage: `_rebuild_tensor_v2`, and `_v3` where a dtype stands among the rest."""
    if type(storage) is not Storage:
        raise MalformedError("a tensor without a storage")
    dtype = next((part for part in rest if isinstance(part, torch.dtype)), storage.dtype)
    if dtype is None or storage.data.numel() % dtype.itemsize:
        raise MalformedError("a storage whose size is not that of its elements")
    shape, steps, start = _shape(size), _shape(stride), whole(offset)
    elements, there = math.prod(shape), storage.data.numel() // dtype.itemsize
    end = start + sum((count - 1) * step for count, step in zip(shape, steps, strict=True)) + 1 if elements else start
    if end > there:
        raise MalformedError(f"a tensor that ends at element {end:,} of a storage of {there:,}")
    if elements > max(there, SMALL):
        raise MalformedError(f"a tensor of {elements:,} elements in a storage of {there:,}")
    return storage.data.view(dtype).as_strided(shape, steps, start)


def _without_values(size: Any) -> Tensor:
    """In place of a tensor that is sparse, quantized or has no values: it has its size, and no weights are in it."""
    return torch.empty(_shape(size), device="meta")


def _shape(sizes: Any) -> tuple[int, ...]:
    if type(sizes) is not tuple or len(sizes) > MAX_DIMS:
        raise MalformedError(f"a tensor whose size is none, or of more than {MAX_DIMS} dimensions")
    return tuple(map(whole, sizes))


def _size_in(parts: Any) -> Tensor:
    """The same, with the last tuple of whole numbers for its size."""
    sizes = [part for part in parts if type(part) is tuple and all(type(n) is int for n in part)]
    return _without_values(sizes[-1] if sizes else (0,))


def _first(first: Any, *_: Any) -> Any:
    return first


def _from_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    return call(function, args)


def _ordered(items: Any = (), *_: Any) -> "OrderedDict[Any, Any]":
    """From a list of (key, value), as Python 2 wrote it."""
    listed = items if type(items) in (tuple, list) else ()
    pairs = [tuple(item) for item in listed if type(item) in (tuple, list) and len(item) == 2]
    return OrderedDict((key_of(key), value) for key, value in pairs)


def _kinds() -> Iterator[tuple[str, Kind]]:
    typed = {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }
    quantized = {"QUInt8": 1, "QInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}
    yield from ((f"{word}Storage", Kind(dtype, dtype.itemsize)) for word, dtype in typed.items())
    yield from ((f"{word}Storage", Kind(None, size)) for word, size in quantized.items())
    yield "UntypedStorage", Kind(None, 1)


KINDS = dict(_kinds())
_OPAQUE = Known(lambda *_: Opaque())
KNOWN = {
    "collections.OrderedDict": Known(_ordered),
    "torch.Size": Known(lambda size=(), *_: tuple(map(whole, size)) if type(size) in (tuple, list) else ()),
    "torch._tensor._rebuild_from_type": Known(_from_type),
    "torch._tensor._rebuild_from_type_v2": Known(_from_type),
    **{f"torch._utils._rebuild_{word}": Known(_tensor) for word in ("tensor", "tensor_v2", "tensor_v3")},
    **{f"torch._utils._rebuild_{word}": Known(_first) for word in ("parameter", "parameter_with_state")},
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": Known(_first),
    "torch._utils._rebuild_qtensor": Known(lambda _, __, size, *___: _without_values(size)),
    "torch._utils._rebuild_meta_tensor_no_storage": Known(lambda _, size, *__: _without_values(size)),
    "torch._utils._rebuild_sparse_tensor": Known(lambda _, parts: _size_in(parts)),
    "torch._utils._rebuild_nested_tensor": Known(lambda *_: _without_values((0,))),
    "torch._utils._rebuild_wrapper_subclass": Known(lambda *_: _without_values((0,))),
}
"""Full name → what is done in its place."""
BUILTIN = ("set", "frozenset", "complex", "bytearray", "dict", "list", "int", "float", "str", "bool")
HARMLESS = {
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in BUILTIN),
    *(f"numpy.{core}.multiarray.{kind}" for core in ("core", "_core") for kind in ("scalar", "_reconstruct")),
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath")),
    *("numpy.dtype", "numpy.ndarray", "collections.Counter", "collections.defaultdict", "_codecs.encode"),
    *("torch.device", "torch.serialization._get_layout", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    *("argparse.Namespace", "yacs.config.CfgNode"),
}
"""Plain values that authors save beside the weights: read over, whatever they hold."""
