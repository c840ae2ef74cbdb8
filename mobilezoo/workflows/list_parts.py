"""`mobilezoo list --parts`: attention and blocks that stages of `mbconv` networks and search spaces take by name."""

import fnmatch
import inspect
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mobilezoo.errors import UnknownNameError


@dataclass(frozen=True)
class PartRow:
    """One part that a stage can name."""

    key: str
    """Key of the stage that takes the name: `attention`, or `block` for a whole stage of a family's blocks."""
    name: str
    description: str
    source: str
    """`mobilezoo`, `timm`, or the place of a plugin's."""


def part_rows(pattern: str = "*") -> list[dict[str, Any]]:
    """One plain record per part; those of plugins stand last among attention.

    Args:
        pattern: shell pattern of names.

    Raises:
        UnknownNameError: no part has such a name.
    """
    rows = [*_attention(), *_blocks()]
    found = [asdict(row) for row in rows if fnmatch.fnmatch(row.name, pattern)]
    if not found:
        raise UnknownNameError("part", pattern, [row.name for row in rows])
    return found


def _attention() -> list[PartRow]:
    from mobilezoo.layers.attention import ATTENTION, OF_TIMM

    rows = []
    for name, build in ATTENTION.load_all().items():
        if name in OF_TIMM:
            rows.append(PartRow("attention", name, f"timm's attention layer {name}", "timm"))
        else:
            source = "mobilezoo" if name in ATTENTION.builtin else ATTENTION.place(name)
            rows.append(PartRow("attention", name, _first_line(build), source))
    return rows


def _blocks() -> list[PartRow]:
    from mobilezoo.models.base import family_module
    from mobilezoo.models.mixers import MIXERS

    return [PartRow("block", name, _first_line(family_module(name)), "mobilezoo") for name in MIXERS]


def _first_line(thing: Any) -> str:
    """First line of a docstring; a partial's is that of what it calls."""
    while isinstance(thing, partial):
        thing = thing.func
    return (inspect.getdoc(thing) or "").partition("\n")[0]
