"""Which operators of an int8 file stay float: contiguous segments, numbered from the input to the output.

A file's weighted operators, in their order, are divided into `SEGMENTS` segments of about equal length. A segment that
stays float includes the operators up to the next segment, so that a float part is contiguous, with one conversion on
either side.
"""

from collections.abc import Collection, Sequence

SEGMENTS = 8


def float_positions(weighted: Sequence[bool], segments: Collection[int]) -> set[int]:
    """Positions, among all operators of a file, of those that stay float.

    `weighted` marks each operator that is a convolution, a linear layer or a matrix product.
    """
    where = [position for position, is_weighted in enumerate(weighted) if is_weighted]
    starts = [where[i * len(where) // SEGMENTS] if i and where else 0 for i in range(SEGMENTS)] + [len(weighted)]
    return {position for segment in segments for position in range(starts[segment], starts[segment + 1])}
