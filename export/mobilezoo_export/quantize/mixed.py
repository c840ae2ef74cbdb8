"""Selects the operators of an int8 file that stay float: contiguous segments, numbered from input to output.

A file's weighted operators, in their order, are divided into `SEGMENTS` segments of about equal length. A segment that
stays float includes the operators up to the next segment, so that a float part is contiguous, with one conversion on
either side.
"""

from collections.abc import Collection, Sequence

SEGMENTS = 8


def float_positions(weighted: Sequence[bool], segments: Collection[int]) -> set[int]:
    """Return the positions, among all operators of a file, of those that stay float.

    Args:
        weighted: for each operator, whether it is a convolution, a linear layer or a matrix product.
        segments: indices of the segments that stay float, 0 to SEGMENTS - 1.
    """
    where = [position for position, is_weighted in enumerate(weighted) if is_weighted]
    starts = [where[i * len(where) // SEGMENTS] if i and where else 0 for i in range(SEGMENTS)] + [len(weighted)]
    return {position for segment in segments for position in range(starts[segment], starts[segment + 1])}
