"""The text half of an ncnn model (`.param`): a line for each layer, with the names of its blobs.

Line 1 is a magic number, line 2 the counts of layers and blobs, then one line for each layer: type, name, number of
inputs, number of outputs, the names of these, and `key=value` for what the layer is set to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import ExportError
from mobilezoo.reading import read_text

MAGIC = "7767517"
LARGEST = 1 << 24
"""Bytes; a network of a thousand layers takes 100 kB."""
INPUT_LAYER = "Input"


class Layer(NamedTuple):
    """One line."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: tuple[str, ...]
    """`key=value`, as written."""

    def line(self) -> str:
        """The layer as text."""
        counts = (str(len(self.inputs)), str(len(self.outputs)))
        return " ".join((f"{self.type:<24}", f"{self.name:<24}", *counts, *self.inputs, *self.outputs, *self.settings))


def read_layers(path: Path) -> list[Layer]:
    """Read a `.param` file without ncnn, whose own reader trusts the counts that it finds.

    Raises:
        ExportError: a line is damaged, or a blob is read before a layer writes it.
        ConfigError: the file cannot be read, or is too large.
    """
    lines = [line.split() for line in read_text(path, LARGEST).splitlines() if line.strip()]
    if lines[:1] != [[MAGIC]] or len(lines) < 3:
        raise _damaged(path, f"it does not begin with {MAGIC}, the two counts and a layer")
    layers = [_layer(path, number, words) for number, words in enumerate(lines[2:], 3)]
    written: set[str] = set()
    for layer in layers:
        if missing := [name for name in layer.inputs if name not in written]:
            raise _damaged(path, f"{layer.name!r} reads {missing[0]!r}, which no layer before it writes")
        written.update(layer.outputs)
    if lines[1] != [str(len(layers)), str(sum(len(layer.outputs) for layer in layers))]:
        raise _damaged(path, f"its counts {' '.join(lines[1])!r} are not those of its layers and blobs")
    return layers


def ends_of(path: Path, layers: list[Layer]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the blobs that a network takes, and of those that it gives.

    Args:
        path: its file, for the error.
        layers: all layers.

    Raises:
        ExportError: it takes or gives nothing.
    """
    read = {name for layer in layers for name in layer.inputs}
    taken = tuple(name for layer in layers if layer.type == INPUT_LAYER for name in layer.outputs)
    given = tuple(name for layer in layers for name in layer.outputs if name not in read)
    if not taken or not given:
        raise _damaged(path, "it takes or gives nothing")
    return taken, given


def write_layers(path: Path, layers: list[Layer], names: Mapping[str, str]) -> None:
    """Write a `.param` file.

    Args:
        path: the file.
        layers: all layers, in order.
        names: blobs to write under another name.
    """
    renamed = [
        layer._replace(
            inputs=tuple(names.get(name, name) for name in layer.inputs),
            outputs=tuple(names.get(name, name) for name in layer.outputs),
        )
        for layer in layers
    ]
    counts = f"{len(layers)} {sum(len(layer.outputs) for layer in layers)}"
    path.write_text("\n".join([MAGIC, counts, *(layer.line() for layer in renamed)]) + "\n", encoding="utf-8")


def _layer(path: Path, number: int, words: list[str]) -> Layer:
    try:
        inputs, outputs = int(words[2]), int(words[3])
    except (IndexError, ValueError):
        raise _damaged(path, f"line {number} is no layer") from None
    ends = 4 + inputs + outputs
    if min(inputs, outputs) < 0 or len(words) < ends:
        raise _damaged(path, f"line {number} names fewer blobs than it counts")
    return Layer(words[0], words[1], tuple(words[4 : 4 + inputs]), tuple(words[4 + inputs : ends]), tuple(words[ends:]))


def _damaged(path: Path, why: str) -> ExportError:
    return ExportError(f"{path.parent.name!r} cannot be read as an ncnn model: {path.name}: {why}")
