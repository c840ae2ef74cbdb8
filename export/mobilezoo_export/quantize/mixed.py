"""Which operators of an int8 file stay float: contiguous groups, numbered from the input to the output.

A file's weighted operators, in their order, are cut into `GROUPS` groups of about the same number. A group that stays
float takes along what lies between its operators and the next group, so that float parts are whole stretches with one
conversion on either side.
"""

from collections.abc import Collection, Sequence

GROUPS = 8


def float_positions(weighted: Sequence[bool], groups: Collection[int]) -> set[int]:
    """Positions, among all operators of a file, of those that stay float.

    `weighted` tells of each operator whether it is a convolution, a linear layer or a matrix product.
    """
    where = [position for position, is_weighted in enumerate(weighted) if is_weighted]
    starts = [where[i * len(where) // GROUPS] if i and where else 0 for i in range(GROUPS)] + [len(weighted)]
    return {position for group in groups for position in range(starts[group], starts[group + 1])}
