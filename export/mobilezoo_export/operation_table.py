"""The functions that compute the operations of a saved program, by name; each program format has its own table."""

from collections.abc import Callable
from typing import Any

Compute = Callable[..., Any]


class OperationTable(dict[str, Compute]):
    """Operation name → the function that computes it."""

    def register(self, *names: str) -> Callable[[Compute], Compute]:
        """Return a decorator that adds a function under one or more names, each of them new.

        Args:
            *names: of operations.
        """

        def add(function: Compute) -> Compute:
            for name in names:
                assert name not in self, name
                self[name] = function
            return function

        return add
