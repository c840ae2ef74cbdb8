"""Tables of flatbuffers whose schema has no classes here; fields are named by their number."""


class FlatTable:
    """Fields of a flatbuffer table by their number. A place outside of the data raises ValueError or struct.error."""

    def __init__(self, data: bytes | bytearray, place: int) -> None:
        """Take a table.

        Args:
            data: the whole flatbuffer.
            place: of the table in it.
        """
        from flatbuffers.table import Table

        self._table = Table(bytearray(data) if not isinstance(data, bytearray) else data, place)

    def _field(self, number: int) -> int:
        offset = int(self._table.Offset(4 + 2 * number))
        return offset + self._table.Pos if offset else 0

    def text(self, number: int) -> str:
        """A string; empty where it is absent."""
        place = self._field(number)
        return bytes(self._table.String(place)).decode("utf-8", "replace") if place else ""

    def byte(self, number: int) -> int:
        """An unsigned byte; 0 where it is absent."""
        return self.whole(number, 1)

    def whole(self, number: int, size: int = 4) -> int:
        """An unsigned integer; 0 where it is absent.

        Args:
            number: place of the field in the schema.
            size: its bytes.
        """
        place = self._field(number)
        if place + size > len(self._table.Bytes):
            raise ValueError(f"field {number} goes beyond the end")
        return int.from_bytes(self._table.Bytes[place : place + size], "little") if place else 0

    def table(self, number: int) -> "FlatTable | None":
        """A table; None where it is absent."""
        place = self._field(number)
        return FlatTable(self._table.Bytes, self._table.Indirect(place)) if place else None

    def tables(self, number: int) -> "list[FlatTable]":
        """A list of tables. Raises ValueError where it goes beyond the end."""
        start, count = self._vector(number)
        return [FlatTable(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, number: int) -> tuple[float, ...]:
        """A list of 32-bit floats. Raises ValueError where it goes beyond the end."""
        from flatbuffers.number_types import Float32Flags

        start, count = self._vector(number)
        return tuple(float(self._table.Get(Float32Flags, start + 4 * i)) for i in range(count))

    def wholes(self, number: int) -> tuple[int, ...]:
        """A list of unsigned 32-bit integers. Raises ValueError where it goes beyond the end."""
        start, count = self._vector(number)
        data = self._table.Bytes
        return tuple(int.from_bytes(data[start + 4 * i : start + 4 * i + 4], "little") for i in range(count))

    def _vector(self, number: int) -> tuple[int, int]:
        place = int(self._table.Offset(4 + 2 * number))
        if not place:
            return 0, 0
        start, count = int(self._table.Vector(place)), int(self._table.VectorLen(place))
        if not 0 <= start <= start + 4 * count <= len(self._table.Bytes):
            raise ValueError(f"a list of {count} entries goes beyond the end")
        return start, count
