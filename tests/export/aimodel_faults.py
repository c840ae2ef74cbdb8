"""Faults that are planted into a saved `.aimodel`, one at a time, through the bindings that wrote it."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HARMLESS_WHERE_ONE = ("conv2d", "sum_pool_2d")
"""Their stride and dilation change nothing where the window, or the map, is one pixel."""
SWAPS = {
    "coreai.sigmoid": "coreai.tanh",
    "coreai.relu": "coreai.silu",
    "coreai.silu": "coreai.relu",
    "coreai.decomposable.broadcasting_mul": "coreai.decomposable.broadcasting_add",
    "coreai.decomposable.broadcasting_add": "coreai.decomposable.broadcasting_sub",
    "coreai.decomposable.broadcasting_sub": "coreai.decomposable.broadcasting_add",
    "coreai.reduce_mean": "coreai.reduce_sum",
    "coreai.gelu": "coreai.silu",
}
"""Operation → one of another meaning and the same operands."""


class Saved:
    """A model that is loaded for one fault; `save` writes it with a hash that fits."""

    def __init__(self, path: Path) -> None:
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import load_module_from_bytecode
        from coreai.authoring.context import Context

        self._path, self.context = path, Context()._mlir_context
        self.module = load_module_from_bytecode(context=self.context, path=path / "main.mlirb")
        (main,) = (one for one in self.module.body.operations if one.attributes["sym_name"].value == "main")
        self.arguments = list(main.regions[0].blocks[0].arguments)
        self.operations = [one.operation for one in main.regions[0].blocks[0].operations]

    def save(self, out: Path) -> Path:
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import serialize_module_to_bytecode
        from coreai.runtime import _AIModelAsset

        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self._path, out)
        program = out / "main.mlirb"
        program.unlink()
        dialect = _AIModelAsset._dialect_version_for_os("v27")
        with self.context:
            serialize_module_to_bytecode(
                module=self.module, package_path=program, dialect_version=dialect, bytecode_version=6
            )
        (out / "main.hash").write_bytes(hashlib.sha256(program.read_bytes()).digest())
        return out

    def values(self, place: int) -> np.ndarray | None:
        """A constant's values; None for another operation, and for large ones, which the bindings do not give."""
        item = self.operations[place]
        if item.name != "coreai.constant" or type(item.attributes["value"]).__name__ == "Attribute":
            return None
        return np.array(item.attributes["value"])

    def operand(self, item: Any, which: int) -> int:
        """Place of the constant that is an operand; -1 where it is computed."""
        owner = item.operands[which].owner
        places = [place for place, one in enumerate(self.operations) if one == owner]
        return places[0] if places and self.operations[places[0]].name == "coreai.constant" else -1

    def give(self, item: Any, which: int, values: np.ndarray) -> None:
        """Let one operand of one operation be another constant; others that share the old one keep it."""
        from coreai._compiler._mlir_libs._coreaiIR._bindings.mlir.dialects.coreai import create_elements_attr
        from coreai._compiler.ir import InsertionPoint, Location

        fresh = self.operations[self.operand(item, which)].clone(ip=InsertionPoint(item))
        where = Location.unknown(self.context)
        fresh.attributes["value"] = create_elements_attr(where, fresh.results[0].type, np.ascontiguousarray(values))
        item.operands[which] = fresh.results[0]


Fault = Callable[[Saved], None]


def faults(path: Path) -> Iterator[tuple[str, Fault]]:
    """(what it is, what plants it) of every fault that changes what the main function computes."""
    from mobilezoo_export.aimodel.reading import read_graphs

    saved, zeros = Saved(path), _zeros(read_graphs(path)["main"])
    numbers = {value: number for number, value in enumerate(_values(saved))}
    for place, item in enumerate(saved.operations):
        name = item.name.removeprefix("coreai.").removeprefix("decomposable.broadcasting_")
        where = f"{name} #{place}"
        if name in ("constant", "output"):
            continue
        if name in ("add", "sub") and any(numbers[value] in zeros for value in item.operands):
            continue  # a bias of zeros: without it, or subtracted, the function is the same
        same = [k for k, value in enumerate(item.operands) if value.type == item.results[0].type]
        if len(item.results) == 1 and same:
            yield f"{where} is dropped", _dropped(place, same[0])
        if item.name in SWAPS:
            yield f"{where} computes {SWAPS[item.name]}", _swapped(place, SWAPS[item.name])
        for which in range(len(item.operands)):
            constant = saved.operand(item, which)
            values = saved.values(constant) if constant >= 0 else None
            if values is None or not values.size or _harmless(name, which, item, values):
                continue
            for what, wrong in _wrong(name, which, values):
                if name.startswith("reduce") and sorted(wrong) == sorted(values):
                    continue  # the order of axes means nothing
                yield f"{where}: operand {which} {what}", _given(place, which, wrong)


def _values(saved: Saved) -> Iterator[Any]:
    """All values of the main function, numbered as the reader numbers them."""
    yield from saved.arguments
    for item in saved.operations:
        yield from item.results


def _zeros(main: Any) -> set[int]:
    """Numbers of the constants that are all zero."""
    return {number for number, values in main.constants.items() if not values.any()}


def _harmless(name: str, which: int, item: Any, values: np.ndarray) -> bool:
    """Whether a change of this operand may change nothing."""
    from coreai._compiler.ir import RankedTensorType

    if name in HARMLESS_WHERE_ONE and which in (2, 3):
        window = RankedTensorType(item.operands[1].type).shape[-2:]
        return max(window) == 1 and (which == 3 or max(RankedTensorType(item.operands[0].type).shape[-2:]) == 1)
    if name == "slice":  # a step from a single place, an end beyond the last place
        last = RankedTensorType(item.results[0].type).shape[-1:]
        return (which == 3 and last == [1]) or values.max(initial=0) >= 2**31 - 1
    return name == "invoke"


def _wrong(name: str, which: int, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Other values of a constant operand."""
    if values.dtype.kind == "f":
        flat = values.copy().reshape(-1)
        flat[int(np.abs(flat).argmax())] *= 0.9
        if np.any(flat != values.reshape(-1)):
            yield "has one value that is a tenth smaller", flat.reshape(values.shape)
        if values.ndim == 4 and values.shape[-1] > 1:
            yield "has rows and columns swapped", values.swapaxes(2, 3)
        return
    if values.dtype.kind == "b":
        yield "is the other truth value", ~values
        return
    yield "has a last value one larger", _plus_one(values)
    if name == "pad" and values.ndim == 1 and values[-1] == values[-2] > 0:
        moved = values.copy()
        moved[-2:] = moved[-2] - 1, moved[-1] + 1
        yield "pads the other side", moved
    distinct = np.flatnonzero(values.reshape(-1) != values.reshape(-1)[0])
    if distinct.size:
        swapped = values.copy().reshape(-1)
        swapped[[0, distinct[0]]] = swapped[[distinct[0], 0]]
        yield "has two axes swapped", swapped.reshape(values.shape)


def _plus_one(values: np.ndarray) -> np.ndarray:
    larger = values.copy().reshape(-1)
    larger[-1] += 1
    return larger.reshape(values.shape)


def _dropped(place: int, which: int) -> Fault:
    def plant(saved: Saved) -> None:
        item = saved.operations[place]
        item.results[0].replace_all_uses_with(item.operands[which])

    return plant


def _swapped(place: int, other: str) -> Fault:
    def plant(saved: Saved) -> None:
        from coreai._compiler.ir import InsertionPoint, Location, Operation

        item = saved.operations[place]
        with saved.context, Location.unknown(saved.context):
            types, operands = [one.type for one in item.results], list(item.operands)
            fresh = Operation.create(other, results=types, operands=operands, ip=InsertionPoint(item))
        item.results[0].replace_all_uses_with(fresh.results[0])

    return plant


def _given(place: int, which: int, values: np.ndarray) -> Fault:
    return lambda saved: saved.give(saved.operations[place], which, values)
