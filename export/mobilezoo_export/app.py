"""What apps want in a file: raw pixels in, and notes on input and output inside the file itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.artifacts import Quantization
from mobilezoo.preprocessing import COLOURS, Preprocessing
from mobilezoo.reading import mapping, parse_json
from mobilezoo_export.contract import Borders, ExportSpec

KEY = "mobilezoo"
"""Name of the note in every format."""
INPUT, OUTPUT = "image", "logits"
"""Names of a file's input and output, where the format has names."""
FLOAT_BORDERS = Borders()


def pixel_scale(preprocessing: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), float32 [1, C, 1, 1], that normalise pixel values 0..255."""
    prep = preprocessing.for_channels(channels)
    mean, std = (np.asarray(values).reshape(1, channels, 1, 1) for values in (prep.mean, prep.std))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def to_pixels(batch: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Normalised float32 NCHW → the uint8 pixels it came from."""
    scale, shift = pixel_scale(preprocessing, batch.shape[1])
    pixels: np.ndarray = np.clip(np.rint((batch - shift) / scale), 0, 255).astype(np.uint8)
    return pixels


def to_normalised(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 NCHW pixels → float32 as the network expects."""
    scale, shift = pixel_scale(preprocessing, pixels.shape[1])
    return np.asarray(pixels * scale + shift, dtype=np.float32)


def notes(spec: ExportSpec, layout: str, borders: Borders = FLOAT_BORDERS) -> dict[str, Any]:
    """What an app must know to feed the file and to read its answer."""
    prep = spec.preprocessing.for_channels(spec.in_chans)
    colours = COLOURS.get(spec.in_chans, f"{spec.in_chans} channels")
    noted = _float_notes(spec, layout, prep, colours)
    if borders.input is not None:
        noted["input"] |= _quantized_input(borders.input, prep)
    if borders.output is not None:
        what = "probability" if spec.options.softmax else "logit"
        noted["output_quantization"] = {
            **borders.output.model_dump(),
            "formula": f"{what} = (q - zero_point) * scale",
        }
    return noted


def _quantized_input(how: Quantization, prep: Preprocessing) -> dict[str, Any]:
    """The formula of the integers that the input takes, also straight from pixels 0..255, one number per channel."""
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


def _float_notes(spec: ExportSpec, layout: str, prep: Preprocessing, colours: str) -> dict[str, Any]:
    return {
        "model": spec.model,
        "precision": spec.precision,
        "input": {
            "name": INPUT,
            "values": "pixels 0..255" if spec.options.image else "(pixels / 255 - mean) / std",
            "channels": colours,
            "mean": list(prep.mean),
            "std": list(prep.std),
            "layout": layout,
            "resolution": list(spec.resolution),
            "resize_and_crop": prep.rule(spec.resolution),
            "crop_pct": prep.crop_pct,
            "crop_mode": prep.crop_mode,
            "interpolation": prep.interpolation,
        },
        "output": "probabilities" if spec.options.softmax else "logits",
        "labels": list(spec.labels),
    }


def notes_text(spec: ExportSpec, layout: str, borders: Borders = FLOAT_BORDERS) -> str:
    """The notes as JSON, the same for the same spec."""
    return json.dumps(notes(spec, layout, borders), ensure_ascii=False, sort_keys=True)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes inside an exported file; empty where it holds none."""
    from mobilezoo_export.registry import exporter_of

    text = exporter_of(path).notes_in(path)
    return mapping(parse_json(text, path.name), path.name) if text else {}


def onnx_notes(path: Path) -> str:
    import onnx

    return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}.get(KEY, "")


def coreml_notes(path: Path) -> str:
    import coremltools as ct

    return str(ct.utils.load_spec(str(path)).description.metadata.userDefined.get(KEY, ""))


def executorch_notes(path: Path) -> str:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    if KEY not in program.method_names:
        return ""
    method = program.load_method(KEY)
    return str(method.execute([])[0]) if method is not None else ""
