"""Lists of classes in a network's order: files of the user, and ImageNet's names as timm ships them."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

from mobilezoo.errors import ConfigError, UnknownNameError, existing_path
from mobilezoo.reading import MAX_JSON_BYTES, read_json, read_text

Entries = Sequence[str | int | None]
"""What each output stands for, in the network's order: a class of the data by name or by index, or None for neither."""
SUBSETS = {
    "imagenet-1k": 1000,
    "imagenet-21k-miil": 11221,
    "imagenet-12k": 11821,
    "imagenet-22k": 21841,
    "imagenet-22k-ms": 21842,
    "imagenet-21k-goog": 21843,
}
"""timm's lists → outputs; one more output than that is a background class before the others."""


class Places(NamedTuple):
    """The output of each class of the data, in the data's order, and a line for the user where it was looked up."""

    outputs: tuple[int, ...]
    note: str = ""


class NameList(NamedTuple):
    """One ImageNet list: WordNet id → index, and what people call the classes → index (None where two share it)."""

    by_id: dict[str, int]
    by_name: dict[str, int | None]

    def place(self, name: str) -> int | None:
        """Where a folder of this name belongs; None where the list has no such class, or more than one."""
        return self.by_id.get(name, self.by_name.get(_plain(name)))


def read_entries(path: str) -> Entries | dict[str, int]:
    """A .txt with a line per output, or a .json: a list, name → output, or output → name. Raises ConfigError."""
    file = existing_path(path, "class map")
    suffix = file.suffix.lower()
    if suffix == ".txt":
        return [line.strip() or None for line in read_text(file, MAX_JSON_BYTES).rstrip().splitlines()]
    if suffix != ".json":
        raise ConfigError(f"--classes {path!r}: a .json or .txt file, labels, or one of {', '.join(SUBSETS)}")
    content = read_json(file)
    if isinstance(content, dict):
        return _from_mapping(content, path)
    kinds = (str, int, type(None))
    if not isinstance(content, list) or not all(type(entry) in kinds for entry in content):
        raise ConfigError(f"{path!r} is no class map: a list of names, or an object of names and output numbers")
    return content


@overload
def imagenet_places(data: tuple[str, ...], outputs: int) -> Places | None: ...
@overload
def imagenet_places(data: tuple[str, ...], outputs: int, given: str, labels: tuple[str, ...] = ()) -> Places: ...


def imagenet_places(
    data: tuple[str, ...], outputs: int, given: str | None = None, labels: tuple[str, ...] = ()
) -> Places | None:
    """Places of classes named by WordNet id or ImageNet's words among the outputs of an ImageNet network.

    Args:
        data: class names of the data, in its order.
        outputs: number of the network's outputs; one more than a list has is a background class first.
        given: name of the list (a key of SUBSETS); None takes the first list of that many outputs.
        labels: the network's own names, checked against the list's order; () where it has none.

    Returns:
        None where no list was given and the data is not of such classes.

    Raises:
        UnknownNameError: timm ships no list called `given`.
        ConfigError: the given list does not fit data, outputs or labels.
    """
    subset = given.lower() if given else next((n for n, size in SUBSETS.items() if outputs in (size, size + 1)), None)
    if subset is None:
        return None
    if subset not in SUBSETS:
        raise UnknownNameError("class list", subset, SUBSETS)
    size = SUBSETS[subset]
    if outputs not in (size, size + 1):
        raise ConfigError(f"--classes {given}: the list has {size} classes, the network {outputs} outputs")
    names = _name_list(subset)
    indices = [names.place(name) for name in data]
    lacking = [name for name, index in zip(data, indices, strict=True) if index is None]
    twice = [name for i, name in enumerate(data) if indices[i] in indices[:i]]
    if lacking or twice:
        if given is None:
            return None
        raise ConfigError(_why_not(subset, lacking, twice))
    shift = outputs - size
    _check_order(names, labels, shift, subset)
    found = tuple(index + shift for index in indices if index is not None)
    by = "WordNet id" if all(name in names.by_id for name in data) else "name"
    note = f"{len(data)} classes of the data found by {by} among the {size} of {subset}"
    return Places(found, "" if found == tuple(range(outputs)) else note + (", after a background class" * shift))


def imagenet_words(given: str, outputs: int) -> tuple[str, ...]:
    """What people call the outputs of an ImageNet network, one word or two for each.

    Args:
        given: name of the list (a key of SUBSETS).
        outputs: number of the network's outputs; one more than the list has is a background class first.

    Raises:
        UnknownNameError: timm ships no list called `given`.
        ConfigError: the list has another number of classes.
    """
    from timm.data import ImageNetInfo

    subset = given.lower()
    if subset not in SUBSETS:
        raise UnknownNameError("class list", subset, SUBSETS)
    words = tuple(text.partition(",")[0] for text in ImageNetInfo(subset).label_descriptions())
    if outputs not in (len(words), len(words) + 1):
        raise ConfigError(f"--classes {given}: the list has {len(words)} classes, the network {outputs} outputs")
    return ("background", *words) if outputs > len(words) else words


def _check_order(names: NameList, labels: tuple[str, ...], shift: int, subset: str) -> None:
    """A few names may stand for another class than here, most do not."""
    found = [(output, names.place(label)) for output, label in enumerate(labels)]
    moved = [output for output, index in found if index is not None and index + shift != output]
    if 2 * len(moved) > sum(index is not None for _, index in found):
        raise ConfigError(
            f"the labels are the classes of {subset} in another order, output {moved[0]} is {labels[moved[0]]!r}: "
            "pass --classes MAP.json or MAP.txt with the data's class of each output"
        )


def _why_not(subset: str, lacking: list[str], twice: list[str]) -> str:
    if twice:
        return f"class {twice[0]!r} is in {subset} as the same class as another one of the data: merge them"
    return (
        f"{len(lacking)} classes of the data are not in {subset}, or stand for more than one class there, for example "
        f"{lacking[0]!r}: name the folders by WordNet id, or pass --classes MAP.json"
    )


@functools.cache
def _name_list(subset: str) -> NameList:
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    ids = info.label_names()
    by_name: dict[str, int | None] = {}
    for index, words in enumerate(info.label_descriptions()):
        for name in {_plain(words), *(_plain(word) for word in words.split(","))}:
            by_name[name] = None if name in by_name else index
    return NameList({name: index for index, name in enumerate(ids)}, by_name)


def _plain(name: str) -> str:
    """`Great_White-shark` → `great white shark`."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().casefold()))


def _from_mapping(content: dict[str, Any], path: str) -> Entries | dict[str, int]:
    """name → output as it is; output → name (also ImageNet's own file: output → [WordNet id, name]) as a list."""
    if content and all(isinstance(value, int) and not isinstance(value, bool) for value in content.values()):
        if min(content.values()) < 0:
            raise ConfigError(f"{path!r} is no class map: outputs count from 0, got {min(content.values())}")
        return content
    names = [value[0] if isinstance(value, list) and value else value for value in content.values()]
    if not names or set(content) != set(map(str, range(len(names)))) or not all(isinstance(n, str) for n in names):
        raise ConfigError(f"{path!r} is no class map: name → output number, or every output number from 0 → name")
    by_output = dict(zip(map(int, content), names, strict=True))
    return [by_output[output] for output in range(len(names))]
