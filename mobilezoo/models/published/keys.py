"""Under which of its record's keys a file has the weights."""

from pathlib import Path

from mobilezoo.errors import CheckpointError
from mobilezoo.models.published.choose import Published
from mobilezoo.models.weights import names, tensors_of


def key_of(one: Published, path: Path) -> str | None:
    """Find the key of a record that a file has.

    Args:
        one: the published weights, with the keys to look for.
        path: their file.

    Returns:
        Dotted path of the weights in the file; None for the file itself.

    Raises:
        CheckpointError: the file has none of the keys.
    """
    tensors = tensors_of(path)
    if not one.file.key:
        return None
    for key in one.file.key:
        if any(name.startswith(f"{key}.") for name in tensors):
            return key
    if "" in one.file.key:
        return None
    there = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
    keys = " or ".join(map(repr, one.file.key))
    raise CheckpointError(f"{one.name}: no weights under {keys} in {str(path)!r}: there are {names(there)}")
