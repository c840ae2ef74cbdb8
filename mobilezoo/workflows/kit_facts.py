"""What a kit's README and headers are filled with: facts of the file's record, safe in Markdown and in C++."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mobilezoo.artifacts import Artifact
from mobilezoo.workflows.answers import WORDS

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
DENSE: dict[str, dict[str, str]] = {
    "detect": {
        "found": "boxes",
        "printed": "probability, number, name, left, top, right and bottom (in pixels) of each box",
        "read": "finds the boxes and draws them",
        "code": "boxes",
    },
    "segment": {
        "found": "masks",
        "printed": "the share of each class: percent of the pixels, number, name",
        "read": "finds the class of each pixel and draws it",
        "code": "mask",
    },
}
"""Task → further values of a README."""
C_TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t"}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A template with every `{{name}}` replaced, once: what a value holds is not looked at again.

    Args:
        text: the template.
        values: of the placeholders.
    """
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)


def placeholders(path: Path, record: Artifact, place: str) -> dict[str, str]:
    """Values of the README's placeholders, safe within a Markdown table.

    Args:
        path: the exported file.
        record: its record.
        place: of the file in the kit.
    """
    spec, prep, how = record.input, record.preprocessing, record.output_quantization
    origin = record.origin
    count = f"{len(record.labels)}, named in `model.json`" if record.labels else "not named: shown by their number"
    proof = "" if not record.foreign else "; no record: not compared with a reference"
    return {
        "file": place,
        "made_from": f"{code(path.name)}: {code(record.model)}, {record.precision}{proof}",
        "input": f"{'×'.join(map(str, spec.shape))} {spec.dtype}, {spec.layout}, {_colors(record)}",
        "rule": escaped(prep.rule(spec.resolution)),
        "values": escaped(_values(record)),
        **DENSE.get(record.task, {}),
        "output": _output(record) + (f"; real = (q - {how.zero_point}) * {how.scale!r}" if how else ""),
        "classes": count,
        "weights": f"{code(origin.name)}, license: {escaped(origin.license)}" if origin else _weights(record),
    }


def _output(record: Artifact) -> str:
    if record.task == "classify":
        return WORDS[record.output]
    shape = "×".join(map(str, record.output_shape))
    if record.boxes is None:
        return f"{shape}: rows, columns, {WORDS[record.output]} of each class; the first class is the background"
    how = record.boxes
    return (
        f"{shape}: places; left, top, right, bottom in shares of the input's sides, then a probability for each class. "
        f"A box counts from {how.score:g}; of two of a class that overlap by more than {how.overlap:g} (intersection "
        "over union) the more probable one"
    )


def _weights(record: Artifact) -> str:
    if record.foreign:
        return "of the file's author"
    return "your own" if record.checkpoint else "random: the network was not trained"


def _colors(record: Artifact) -> str:
    return {1: "grey", 3: record.input.colors, 4: "RGBA"}.get(record.preprocessing.channels, "")


def _values(record: Artifact) -> str:
    spec, prep = record.input, record.preprocessing
    if spec.dtype == "uint8" and spec.quantization is None:
        return "pixels 0..255"
    normalized = f"(pixels / 255 - mean) / std, mean {list(prep.mean)}, std {list(prep.std)}"
    how = spec.quantization
    return f"round({normalized} / {how.scale!r}) + {how.zero_point}, clipped" if how else normalized


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line.

    Args:
        text: anything.
    """
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Text as Markdown code, in one line of a table.

    Args:
        text: anything.
    """
    plain = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    gap = " " if "`" in plain else ""
    return f"{fence}{gap}{plain}{gap}{fence}"


def header_values(record: Artifact, file: str) -> dict[str, str]:
    """Values of the placeholders of a C++ kit's headers, as C++ literals.

    Args:
        record: the file's record.
        file: its name in the kit.
    """
    spec, prep, out = record.input, record.preprocessing, record.output_quantization
    given = spec.quantization
    height, width = spec.resolution
    return {
        "value": C_TYPES[spec.dtype],
        "answer": C_TYPES[out.dtype if out else "float32"],
        "file": c_string(file),
        "shape": _braces(spec.shape),
        "channels_last": _bool(spec.layout == "NHWC"),
        "blue_first": _bool(spec.colors == "BGR"),
        "height": str(height),
        "width": str(width),
        "interpolation": c_string(prep.interpolation),
        "crop_mode": c_string(prep.crop_mode),
        "crop_pct": repr(prep.crop_pct),
        "takes_pixels": _bool(spec.dtype == "uint8" and given is None),
        "mean": _braces(prep.mean),
        "std": _braces(prep.std),
        "input_scale": repr(given.scale if given else 1.0),
        "input_zero": str(given.zero_point if given else 0),
        "output_index": str(record.output_index),
        "output_scale": repr(out.scale if out else 0.0),
        "output_zero": str(out.zero_point if out else 0),
        "output": c_string(record.output),
        "labels": "".join(f"    {c_string(label)},\n" for label in record.labels),
        **_answer_values(record),
    }


def _answer_values(record: Artifact) -> dict[str, str]:
    """Those of `boxes.h` or of `mask.h`; none for a classifier."""
    sizes = map(str, record.output_shape)
    if how := record.boxes:
        thresholds = {"least_score": repr(how.score), "most_overlap": repr(how.overlap)}
        return {**dict(zip(("places", "numbers"), sizes, strict=True)), **thresholds}
    return dict(zip(("rows", "columns", "classes"), sizes, strict=True)) if record.output_shape else {}


def _braces(values: Iterable[float]) -> str:
    return f"{{{', '.join(map(repr, values))}}}"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def c_string(text: str) -> str:
    """Text as a string literal of C++ in UTF-8: quotes and backslashes escaped, control characters in octal.

    Args:
        text: anything.
    """
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\{ord(found[0]):03o}", plain) + '"'
