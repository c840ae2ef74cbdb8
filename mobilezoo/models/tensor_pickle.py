"""The pickles that torch.save writes, understood without running anything that they name.

A pickle is a program: it names functions and calls them. Here a name is looked up in one table, and what stands there
builds views of the file's own storages, or nothing at all; any other name ends the reading. Steps, bytes and sizes are
bounded, so that a small file cannot become a large one in memory.
"""

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

from torch import Tensor

from mobilezoo.models.tensor_names import Kind, MalformedError, Opaque, Storage, call, key_of, named, part_of, whole

MAX_BYTES = 1 << 24
"""Of the pickles in one file, storages aside; a thousand tensors take about 150 KB."""
MAX_STEPS = 4_000_000
"""Reads of a pickle: about seventy for each tensor."""


class Source:
    """A file from which a pickle takes a bounded number of bytes in a bounded number of steps."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._bytes, self._steps = file, MAX_BYTES, MAX_STEPS

    def read(self, count: int) -> bytes:
        self._take(count)
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError("ends in the middle of a pickle")
        return data

    def readline(self) -> bytes:
        line = self._file.readline(self._bytes + 1)
        self._take(len(line))
        return line

    def _take(self, count: int) -> None:
        self._steps -= 1
        self._bytes -= count
        if self._steps < 0 or self._bytes < 0:
            raise MalformedError(
                f"a pickle of more than {MAX_BYTES >> 20} MiB or {MAX_STEPS:,} steps beside the tensors"
            )


Find = Callable[[str, Kind, int], Tensor]
"""(key, kind, elements) → the bytes of a storage."""


class Reader(pickle._Unpickler):
    """Python's own interpreter of pickles, with only the steps that data needs.

    It is the one written in Python: the one written in C fills memory for a number in the file.
    """

    dispatch = {}
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, source: Source, storage: Find) -> None:
        super().__init__(source, encoding="utf-8", errors="replace")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name that the pickle refers to; nothing is imported.

        Args:
            module: everything before the last dot.
            name: the rest.

        Raises:
            RefusedNameError: the name stands for more than weights.
        """
        return named(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
            raise MalformedError("refers to something that is no storage")
        _, kind, key, _, elements, *view = pid
        if type(kind) is not Kind or type(key) is not str:
            raise MalformedError("refers to a storage of no known kind")
        data = self._storage(key, kind, whole(elements))
        return Storage(part_of(data, kind, *view) if view else data, kind.dtype)

    def _call(self) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        self.stack.append(call(called, args))

    def _ignore_state(self) -> None:
        """Attributes of a dictionary or a tensor: no weights."""
        self.stack.pop()

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _set_items(self) -> None:
        self._fill(self.pop_mark())

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise MalformedError("sets items of something that has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(key)] = value

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if type(target) is not list:
            raise MalformedError("appends to something that is no list")
        target += items

    def _frame(self) -> None:
        """A hint for faster reading."""
        self.read(8)


KEPT = re.findall(
    r"\w+",
    "PROTO STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES UNICODE BINUNICODE SHORT_BINUNICODE TUPLE TUPLE1 TUPLE2 "
    "TUPLE3 EMPTY_TUPLE EMPTY_LIST LIST EMPTY_DICT GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL "
    "STACK_GLOBAL BINPERSID",
)
"""Python's steps for plain values, names and the memo."""
OWN: dict[bytes, Callable[[Any], None]] = {
    pickle.REDUCE: Reader._call,
    pickle.NEWOBJ: Reader._call,
    pickle.BUILD: Reader._ignore_state,
    pickle.SETITEM: Reader._set_item,
    pickle.SETITEMS: Reader._set_items,
    pickle.DICT: Reader._dict,
    pickle.APPEND: Reader._append,
    pickle.APPENDS: Reader._appends,
    pickle.FRAME: Reader._frame,
}
Reader.dispatch |= {code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, word)[0] for word in KEPT)}
Reader.dispatch |= {code[0]: step for code, step in OWN.items()}
