"""The table of operations, and typed access to one operation's arguments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mobilezoo_export.operation_table import OperationTable

Value = Any
"""A tensor, a plain Python value from the program's constants, or a list of either."""


class Arguments:
    """Arguments of one MIL operation, by name; an absent one has the default of the operation's definition."""

    def __init__(self, lookup: Callable[[str], Value], name: str) -> None:
        self._lookup = lookup
        self.name = name

    def value(self, name: str, default: Value = None) -> Value:
        """Return an argument as it is.

        Args:
            name: of the argument.
            default: returned if the argument is absent.
        """
        found = self._lookup(name)
        return default if found is None else found

    def tensor(self, name: str = "x") -> torch.Tensor:
        """Return a required argument as a tensor."""
        return as_tensor(self._lookup(name))

    def maybe_tensor(self, name: str) -> torch.Tensor | None:
        """Return an optional argument as a tensor, or None if it is absent."""
        found = self._lookup(name)
        return None if found is None else as_tensor(found)

    def tensors(self, name: str = "values") -> list[torch.Tensor]:
        """Return a required list argument as tensors."""
        return [as_tensor(value) for value in self._lookup(name)]

    def number(self, name: str, default: float = 0.0) -> float:
        """Return an argument as a float.

        Args:
            name: of the argument.
            default: returned if the argument is absent.
        """
        return float(self.value(name, default))

    def integer(self, name: str, default: int = 0) -> int:
        """Return an argument as an integer.

        Args:
            name: of the argument.
            default: returned if the argument is absent.
        """
        return int(self.value(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an argument as a truth value.

        Args:
            name: of the argument.
            default: returned if the argument is absent.
        """
        return bool(self.value(name, default))

    def text(self, name: str, default: str = "") -> str:
        """Return an argument as text.

        Args:
            name: of the argument.
            default: returned if the argument is absent.
        """
        return str(self.value(name, default))

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """Return an argument as a list of integers; a scalar becomes a list of one.

        Args:
            name: of the argument.
            default: returned if the argument is absent; None: an empty list.
        """
        found = self._lookup(name)
        if found is None:
            return default or []
        array = found.numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        return [int(item) for item in np.atleast_1d(array)]


def as_tensor(value: Value) -> torch.Tensor:
    """Convert a value to a tensor; constants may be NumPy scalars or arrays."""
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(np.array(value, order="C"))


OPERATIONS = OperationTable()
"""MIL operation name → the function that computes it."""
operation = OPERATIONS.register
