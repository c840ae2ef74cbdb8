"""Metadata inside an exported file: how to feed its input and to interpret its output."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.artifacts import Quantization
from mobilezoo.preprocessing import COLORS, Preprocessing
from mobilezoo.reading import mapping, parse_json
from mobilezoo_export.records import Borders, ExportSpec
from mobilezoo_export.registry import exporter_of

KEY = "mobilezoo"
"""Key of the metadata entry in every format."""
INPUT, OUTPUT = "image", "logits"
"""Names of a file's input and output, where the format has names."""
PIXELS = "pixels 0..255"
"""Values of an input that takes an image."""
FLOAT_BORDERS = Borders()


def build_metadata(spec: ExportSpec, layout: str, borders: Borders = FLOAT_BORDERS) -> dict[str, Any]:
    """Describe a file's input and output for an application that runs it.

    Args:
        spec: what was exported.
        layout: memory layout of the input, NCHW or NHWC.
        borders: scales and zero points of integer inputs and outputs.

    Returns:
        A JSON object; docs/export.md describes its keys.
    """
    prep = spec.preprocessing.for_channels(spec.in_chans)
    colors = COLORS.get(spec.in_chans, f"{spec.in_chans} channels")
    metadata = _float_metadata(spec, layout, prep, colors)
    if borders.input is not None:
        metadata["input"] |= _quantized_input(borders.input, prep)
    if borders.output is not None:
        what = "value" if spec.task == "detect" else "probability" if spec.options.softmax else "logit"
        metadata["output_quantization"] = {
            **borders.output.model_dump(),
            "formula": f"{what} = (q - zero_point) * scale",
        }
    return metadata


def _quantized_input(how: Quantization, prep: Preprocessing) -> dict[str, Any]:
    """Build the formulas from normalized values, and directly from pixels 0..255, to the integers of the input."""
    limits = np.iinfo(how.dtype)
    clipped = f"clipped to {limits.min}..{limits.max}"
    channels = list(zip(prep.mean, prep.std, strict=True))
    return {
        "values": f"q = round((pixels / 255 - mean) / std / scale) + zero_point, {clipped}",
        "quantization": how.model_dump(),
        "from_pixels": {
            "formula": f"q = round(pixel * multiplier + offset), {clipped}",
            "multiplier": [1 / (255 * std * how.scale) for _, std in channels],
            "offset": [how.zero_point - mean / (std * how.scale) for mean, std in channels],
        },
    }


def _float_metadata(spec: ExportSpec, layout: str, prep: Preprocessing, colors: str) -> dict[str, Any]:
    return {
        "model": spec.model,
        "precision": spec.precision,
        "input": {
            "name": INPUT,
            "values": PIXELS if spec.options.image else "(pixels / 255 - mean) / std",
            "channels": colors,
            "mean": list(prep.mean),
            "std": list(prep.std),
            "layout": layout,
            "resolution": list(spec.resolution),
            "resize_and_crop": prep.rule(spec.resolution),
            "crop_pct": prep.crop_pct,
            "crop_mode": prep.crop_mode,
            "interpolation": prep.interpolation,
        },
        "output": spec.output,
        "labels": list(spec.labels),
        **_dense(spec),
    }


def _dense(spec: ExportSpec) -> dict[str, Any]:
    """Describe what is no score per class; nothing for classifiers."""
    if spec.task == "classify":
        return {}
    boxes = {"boxes": spec.boxes.model_dump()} if spec.boxes else {}
    return {"task": spec.task, "answers": spec.answers, **boxes}


def metadata_text(spec: ExportSpec, layout: str, borders: Borders = FLOAT_BORDERS) -> str:
    """Format `build_metadata` as JSON with sorted keys, so that equal specs give equal bytes.

    Args:
        spec: what was exported.
        layout: memory layout of the input, NCHW or NHWC.
        borders: scales and zero points of integer inputs and outputs.
    """
    return json.dumps(build_metadata(spec, layout, borders), ensure_ascii=False, sort_keys=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that `export` wrote into a file; an empty dict for a file without it.

    Raises:
        ExportError: the suffix is unknown.
        ConfigError: the JSON is damaged.
    """
    text = exporter_of(path).read_metadata_text(path)
    return mapping(parse_json(text, path.name), path.name) if text else {}
