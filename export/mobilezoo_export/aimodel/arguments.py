"""The table of operations, and typed access to one operation's operands."""

from collections.abc import Sequence

import torch

from mobilezoo_export.aimodel.reading import Operation
from mobilezoo_export.operation_table import OperationTable

HELD = {
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "float64": torch.float64,
}
"""Element type → the type that holds its values here; halves are held as rounded float32."""


class Arguments:
    """Operands of one operation, by place."""

    def __init__(self, item: Operation, operands: Sequence[torch.Tensor]) -> None:
        self._item, self._operands = item, operands

    def __len__(self) -> int:
        return len(self._operands)

    def tensor(self, place: int = 0) -> torch.Tensor:
        """Return an operand.

        Args:
            place: of the operand.
        """
        return self._operands[place]

    def tensors(self, start: int = 0) -> list[torch.Tensor]:
        """Return the operands from a place on.

        Args:
            start: place of the first one.
        """
        return list(self._operands[start:])

    def integers(self, place: int) -> list[int]:
        """Return an operand as a list of integers.

        Args:
            place: of the operand.
        """
        return [int(value) for value in self._operands[place].reshape(-1).tolist()]

    def integer(self, place: int) -> int:
        """Return an operand of one value as an integer.

        Args:
            place: of the operand.
        """
        (value,) = self.integers(place)
        return value

    def chosen(self, name: str) -> str:
        """Return the case of an enumeration, `constant` of `#coreai.padding_mode<constant>`; empty where it is absent.

        Args:
            name: of the attribute.
        """
        text = self._item.attributes.get(name, "")
        return text[text.find("<") + 1 : text.rfind(">")]

    @property
    def dtype(self) -> str:
        """Element type of the first result, by NumPy's name."""
        return self._item.results[0].dtype

    @property
    def results(self) -> int:
        """Number of results."""
        return len(self._item.results)


def stored(value: torch.Tensor, dtype: str) -> torch.Tensor:
    """A value as a device stores it: rounded to half where it is declared so.

    Args:
        value: computed.
        dtype: element type, by NumPy's name.
    """
    if dtype == "float16":
        return value.to(torch.float16).float()
    return value.to(HELD.get(dtype, torch.float32))


OPERATIONS = OperationTable()
"""Operation name → the function that computes it, as a tensor or several."""
operation = OPERATIONS.register
