"""Bounds of the numbers in a model YAML, checked before building begins: beyond them it might not end."""

from collections.abc import Iterator, Mapping
from typing import Any

from mobilezoo.errors import ConfigError, shortened

MOST = 1 << 16
"""No width, kernel or group count of a network's YAML is larger; nor is any other number in it."""
MOST_BLOCKS = 1000
"""Of all stages together: the deepest residual networks published have as many layers."""
MOST_ENTRIES = 1 << 12


def check_numbers(data: Mapping[str, Any], source: str) -> None:
    """Check that a model YAML's numbers are those of a network.

    Args:
        data: the YAML; `published` is left out.
        source: where it comes from, for the message.

    Raises:
        ConfigError: a number, a list or the number of blocks is beyond any network's.
    """
    blocks = 0
    for key, value in _leaves({key: value for key, value in data.items() if key not in ("published", "weights")}, ""):
        if isinstance(value, list) and len(value) > MOST_ENTRIES:
            raise ConfigError(f"{source}: {key} has {len(value):,} entries: expected at most {MOST_ENTRIES:,}")
        if isinstance(value, (int, float)) and abs(value) > MOST:
            raise ConfigError(f"{source}: {key} = {shortened(repr(value))}: expected at most {MOST:,}")
        if isinstance(value, int) and key.rstrip(".0123456789").endswith(("depth", "depths")):
            blocks += value
    if blocks > MOST_BLOCKS:
        raise ConfigError(f"{source}: {blocks:,} blocks in all stages: expected at most {MOST_BLOCKS:,}")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no mapping; lists before their entries."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
        return
    yield key, value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{key}.{index}")
