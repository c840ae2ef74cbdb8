"""Read an image, prepare it as model.json describes it, and run the network beside this file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
BAD_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what brings an image upright."""


class Network:
    """The network and all that model.json holds: how an image becomes its input, and what its output means."""

    def __init__(self, folder: Path = HERE) -> None:
        self.model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.labels = self.model["labels"]
        self.run = (onnx if self.model["runtime"] == "onnx" else litert)(folder / self.model["file"], self.model)

    def answer(self, image: Image.Image) -> np.ndarray:
        """What the network answers for one image of `read`, as one row of real numbers."""
        prep = self.model["preprocessing"]
        answer = self.run(tensor(fit(image, self.model["size"], prep), prep, self.model["input"]))
        first = answer.ravel()[: answer.size // self.model["input"]["shape"][0]].astype(np.float32)
        if how := self.model["output_quantization"]:
            first = (first - how["zero_point"]) * np.float32(how["scale"])
        if not np.isfinite(first).all():
            raise ValueError("the network answers with numbers that are not finite")
        return first

    def name(self, index: int) -> str:
        """The name of a class, in one line; empty where model.json has none."""
        return " ".join(self.labels[index].split()) if self.labels else ""


def read(path: str, channels: int) -> Image.Image:
    """An image file as RGB, grey or RGBA of 8 bits: upright, and on white where it is transparent."""
    with Image.open(path) as opened:
        opened.load()
        deep = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM")
        turn, image = upright(opened), opened.copy()
    if deep:
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F", "LAB"):
        raise ValueError(f"pixels of mode {image.mode!r}: save it with 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode in ("RGB", "RGBA", "L") else image.convert("RGB")
    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    return image if turn is None else image.transpose(turn)


def upright(image: Image.Image) -> Image.Transpose | None:
    """How an image is turned by its EXIF data; None where it stands upright, or where that data is damaged."""
    try:
        return TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow raises whatever a damaged block leads to; the pixels are not concerned
        return None


def fit(image: Image.Image, size: list[int], prep: dict[str, Any]) -> Image.Image:
    """Resize, then cut `size` (height, width) from the center; what is smaller is padded."""
    height, width = resized_size(image.height, image.width, size, prep)
    if min(height, width) < 1:
        raise ValueError(f"{image.width}x{image.height} pixels are too narrow for the network's input")
    image = image.resize((width, height), Image.Resampling[prep["interpolation"].upper()])
    border = prep["crop_mode"] == "border"
    fill = tuple(round(255 * value) if border else 0 for value in prep["mean"])
    crop = Image.new(image.mode, (size[1], size[0]), fill if len(fill) > 1 else fill[0])
    crop.paste(image, (-start(width, size[1]), -start(height, size[0])))
    return crop


def resized_size(height: int, width: int, size: list[int], prep: dict[str, Any]) -> tuple[int, int]:
    """(height, width) that an image is resized to."""
    to_height, to_width = (int(side / prep["crop_pct"]) for side in size)
    if prep["crop_mode"] == "squash":
        return to_height, to_width
    if prep["crop_mode"] == "center" and to_height == to_width:
        short = min(height, width)
        return int(to_height * height / short), int(to_height * width / short)
    ratios = height / to_height, width / to_width
    ratio = max(ratios) if prep["crop_mode"] == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def start(length: int, wanted: int) -> int:
    """First row or column of the crop; negative where the image is smaller."""
    return -((wanted - length) // 2) if wanted > length else round((length - wanted) / 2)


def tensor(image: Image.Image, prep: dict[str, Any], spec: dict[str, Any]) -> np.ndarray:
    """An image of the right size as the network's input."""
    channels = len(prep["mean"])
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    how, dtype = spec["quantization"], np.dtype(spec["dtype"])
    if spec["dtype"] == "uint8" and how is None:
        values = pixels
    else:
        mean, std = (np.float32(prep[name]) for name in ("mean", "std"))
        values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        if dtype.kind in "iu":
            scale, zero = (how["scale"], how["zero_point"]) if how else (1, 0)
            limits = np.iinfo(dtype)
            values = np.clip(np.round(values / np.float32(scale)) + zero, limits.min, limits.max)
    values = values[..., ::-1] if spec["colors"] == "BGR" and channels == 3 else values
    values = values if spec["layout"] == "NHWC" else values.transpose(2, 0, 1)
    batch = np.broadcast_to(values, (spec["shape"][0], *values.shape))  # a file for several images gets copies
    return np.ascontiguousarray(batch, dtype=dtype)


def litert(path: Path, model: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    given = interpreter.get_input_details()[0]
    if given["shape"].tolist() != model["input"]["shape"]:
        interpreter.resize_tensor_input(given["index"], model["input"]["shape"])
    interpreter.allocate_tensors()
    answer = interpreter.get_output_details()[model["output_index"]]

    def run(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], values)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(answer["index"]))

    return run


def onnx(path: Path, model: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs an .onnx file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given, answer = session.get_inputs()[0].name, session.get_outputs()[model["output_index"]].name
    return lambda values: np.asarray(session.run([answer], {given: values})[0])
