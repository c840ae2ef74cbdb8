"""Which output of a network stands for which class of the data.

A network and a data set agree where both have the same names in the same order. Where they do not, nothing is scored
by guess: `--classes` gives the places of the data's classes, and ImageNet's own names are found in timm's lists.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mobilezoo.data.class_lists import SUBSETS, Entries, Places, imagenet_places, read_entries
from mobilezoo.errors import ConfigError

if TYPE_CHECKING:
    import torch

FEW = 3


def place_classes(
    data: tuple[str, ...], outputs: int, labels: tuple[str, ...] = (), given: str | None = None, whose: str = "network"
) -> Places:
    """Find the output of each class of the data.

    Args:
        data: class names of the data, in its order.
        outputs: number of the network's outputs.
        labels: the network's names of its outputs; () where it has none.
        given: value of --classes: a .json or .txt file, `labels`, or the name of an ImageNet list.
        whose: the network's name in messages.

    Raises:
        ConfigError: the classes do not agree; the message contains the remedy.
    """
    if labels and len(labels) != outputs:
        raise ConfigError(f"{whose!r} has {outputs} outputs and {len(labels)} labels: its record is of another network")
    if given == "labels":
        if not labels:
            raise ConfigError(f"--classes labels: {whose!r} knows no names; name a .json or .txt file")
        return _located(data, labels, f"the labels of {whose!r}", outputs)
    if given is not None and given.lower().startswith("imagenet"):
        return imagenet_places(data, outputs, given, labels)
    if given is not None:
        return _from_file(data, read_entries(given), given, outputs)
    if labels:
        require_same_classes(labels, data, repr(whose), "the data", remedy=_remedy(data, labels, outputs))
        return Places(tuple(range(outputs)))
    known = imagenet_places(data, outputs)
    if known is not None:
        return known
    if len(data) != outputs:
        raise ConfigError(
            f"{whose!r} answers with {outputs} classes, the data has {len(data)} ({_some(data)}): pass --classes "
            "MAP.json or MAP.txt with the data's class of each output, or the name of a list such as imagenet-1k"
        )
    return Places(tuple(range(outputs)))


def require_same_classes(
    ours: tuple[str, ...], theirs: tuple[str, ...], our_name: str, their_name: str, remedy: str
) -> None:
    """Raise ConfigError with the first class in which two lists differ.

    Args:
        ours: class names in order.
        theirs: the list compared with it.
        our_name: name of the first list's owner in the message.
        their_name: name of the second's.
        remedy: end of the message.
    """
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    mine, other = (repr(names[at]) if at < len(names) else "missing" for names in (ours, theirs))
    raise ConfigError(
        f"{our_name} knows {len(ours)} classes, {their_name} has {len(theirs)}; the first difference is class {at}, "
        f"{mine} there and {other} here: {remedy}"
    )


def placed(
    batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]", places: Places
) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """Batches with the network's output in place of the data's class.

    Args:
        batches: (x, y) with the data's class indices y (B,).
        places: output of each class.
    """
    import torch

    table = torch.tensor(places.outputs, dtype=torch.int64)
    for x, y in batches:
        yield x, table.to(y.device)[y]


def _from_file(data: tuple[str, ...], content: Entries | dict[str, int], given: str, outputs: int) -> Places:
    if not isinstance(content, dict):
        return _located(data, content, repr(given), outputs)
    missing = [name for name in data if name not in content]
    if missing:
        raise ConfigError(_lacks(repr(given), missing))
    beyond = next((name for name in data if content[name] >= outputs), None)
    if beyond is not None:
        raise ConfigError(f"{given!r} puts {beyond!r} at output {content[beyond]}, the network has {outputs} (0 first)")
    return Places(tuple(content[name] for name in data), f"{len(data)} classes of the data placed by {given!r}")


def _lacks(source: str, missing: Sequence[str]) -> str:
    return f"{source} does not have {len(missing)} of the data's classes ({_some(missing)}): add them"


def _located(data: tuple[str, ...], entries: Entries, source: str, outputs: int) -> Places:
    """The places of the data's classes in a list that has one entry for each output."""
    if len(entries) != outputs:
        raise ConfigError(f"{source} lists {len(entries)} classes, the network has {outputs} outputs: one entry each")
    by_index = _is_by_index(data, entries)
    wanted: Sequence[str | int] = range(len(data)) if by_index else data
    found: dict[str | int, int] = {}
    for output, entry in enumerate(entries):
        key = int(entry) if by_index and entry not in (None, "") else entry
        if key in wanted and key in found:
            raise ConfigError(f"{source} has {entry!r} twice, as outputs {found[key]} and {output}: keep one")
        if key is not None:
            found[key] = output
    missing = [data[i] for i, key in enumerate(wanted) if key not in found]
    if missing:
        raise ConfigError(_lacks(source, missing))
    return Places(tuple(found[key] for key in wanted), f"{len(data)} classes of the data placed by {source}")


def _is_by_index(data: tuple[str, ...], entries: Entries) -> bool:
    """Whether entries are positions in the data's order; a name wins where folders are called by numbers."""
    filled = [entry for entry in entries if entry not in (None, "")]
    if set(map(str, filled)) >= set(data):
        return False
    return all(isinstance(entry, int) or (isinstance(entry, str) and entry.isdecimal()) for entry in filled)


def _remedy(data: tuple[str, ...], labels: tuple[str, ...], outputs: int) -> str:
    if set(data) <= set(labels):
        return "pass --classes labels to score them by name"
    if imagenet_places(data, outputs) is not None:
        known = next(name for name, size in SUBSETS.items() if outputs in (size, size + 1))
        return f"pass --classes {known} if these are its classes"
    return "use the data it was trained on, or pass --classes MAP.json or MAP.txt with the data's class of each output"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:FEW])) + (", …" if len(names) > FEW else "")
