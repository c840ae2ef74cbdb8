"""Sizes of input images: `224`, `192x256` (height × width) or `[192, 256]` → (height, width) in pixels."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mobilezoo.errors import ConfigError

Size = tuple[int, int]
"""(height, width) in pixels."""
LARGEST = 8192
"""Pixels of a side: beyond it one image's activations fit no machine that trains, and a typing error is likelier."""
WRITTEN = r"^\s*([0-9]{1,5})\s*(?:[xX×]\s*([0-9]{1,5})\s*)?$"
EXPECTED = f"a side or height x width of 1 to {LARGEST} pixels: 224, 192x256 or [192, 256]"


def _as_size(value: Any) -> Size:
    """Raises ValueError, with what was expected."""
    if isinstance(value, str):
        numbers = re.fullmatch(WRITTEN, value)
        sides: Any = tuple(int(n) for n in numbers.groups() if n) if numbers else ()
    else:
        sides = (value,) if isinstance(value, int) else value
    whole = isinstance(sides, (tuple, list)) and all(type(side) is int and 1 <= side <= LARGEST for side in sides)
    if not whole or len(sides) not in (1, 2):
        raise ValueError(EXPECTED)
    return sides[0], sides[-1]


Side = Annotated[int, Field(ge=1, le=LARGEST)]
Written = Side | Annotated[str, Field(pattern=WRITTEN)] | Annotated[list[Side], Field(min_length=1, max_length=2)]
"""Forms that a YAML may contain, for JSON schemas."""
Resolution = Annotated[Size, BeforeValidator(_as_size, json_schema_input_type=Written)]
"""Type of a record's field: each of the three forms is parsed to the pair."""


def as_size(resolution: int | Size) -> Size:
    """Converts a side to (height, width); a pair passes."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def parse_resolution(text: str) -> Size:
    """Parses the value of `--resolution`. Raises ConfigError."""
    try:
        return _as_size(text)
    except ValueError as error:
        raise ConfigError(f"--resolution {text[:40]!r}: expected {error}") from None


def written(size: Size) -> int | str:
    """Formats a size for tables and plain data: 224 for a square, else 192x256."""
    height, width = size
    return height if height == width else f"{height}x{width}"
