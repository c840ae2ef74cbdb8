"""Exported files as scoring and predicting see them: whose record is there, or what the user says instead."""

import re
from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.verbs.options import SubjectOptions

SUFFIXES = (".onnx", ".tflite", ".mlpackage", ".pte")
PRESETS = {
    "imagenet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "inception": {"mean": [0.5] * 3, "std": [0.5] * 3},
    "raw": {"mean": [0.0] * 3, "std": [1.0] * 3},
}
"""Names for --preprocess. `raw` is pixels: 0..1 for float inputs, bytes as they are for quantized ones."""
GRAMMAR = (
    "--preprocess is imagenet, inception or raw, and KEY=VALUE with commas between: mean=0.485/0.456/0.406, "
    "std=0.5, crop=0.875, crop_mode=center, interpolation=bilinear"
)


def is_exported(subject: str) -> bool:
    """Whether a name is an exported file's rather than a network's or a checkpoint's."""
    return Path(subject).suffix in SUFFIXES


def described(path: Path, options: SubjectOptions) -> Artifact:
    """The record of a file; for one that others made, what it tells of itself and `options` add.

    Raises ConfigError where nobody says how images become its input, or it takes no image.
    """
    from mobilezoo_export import open_artifact

    record = open_artifact(path)
    if not record.foreign:
        return record
    if record.input.layout == "none":
        raise ConfigError(f"{path.name!r} takes no single image (input {record.input.shape}): only profile can run it")
    given = options.preprocess is not None or (options.mean is not None and options.std is not None)
    if "preprocessing" in record.untold and not given:
        raise ConfigError(f"{path.name!r} does not tell how images become its input: {GRAMMAR}")
    changed = parse_preprocess(options.preprocess, record.preprocessing) if options.preprocess else {}
    prep = options.preprocessing(record.preprocessing.model_copy(update=changed), record.preprocessing.channels)
    update: dict[str, Any] = {"preprocessing": prep, "labels": options.labels or record.labels, "untold": ()}
    if "raw" in (options.preprocess or "").split(","):
        update["input"] = record.input.model_copy(update={"quantization": None})
    return record.model_copy(update=update)


def parse_preprocess(text: str, known: Preprocessing) -> dict[str, Any]:
    """The fields of Preprocessing that `--preprocess` gives, checked. Raises ConfigError."""
    data: dict[str, Any] = known.model_dump(mode="json")
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and key in PRESETS:
            data |= PRESETS[key]
        elif key in ("mean", "std") and re.fullmatch(r"[-+0-9.e/]+", value):
            data[key] = _numbers(value, part)
        elif key == "crop" and value:
            data["crop_pct"] = _numbers(value, part)[0]
        elif key in ("crop_mode", "interpolation") and value:
            data[key] = value
        else:
            raise ConfigError(f"--preprocess {part!r} is not understood: {GRAMMAR}")
    count = max(len(data["mean"]), len(data["std"]))
    data |= {key: data[key] * count for key in ("mean", "std") if len(data[key]) == 1}
    parsed = Preprocessing.parse(data, f"--preprocess {text}").for_channels(known.channels)
    return {name: getattr(parsed, name) for name in Preprocessing.model_fields}


def _numbers(value: str, part: str) -> list[float]:
    try:
        return [float(number) for number in value.split("/")]
    except ValueError:
        raise ConfigError(
            f"--preprocess {part!r}: numbers with / between, for example mean=0.485/0.456/0.406"
        ) from None
