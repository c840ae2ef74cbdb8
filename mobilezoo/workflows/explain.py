"""`mobilezoo explain`: where in an image a network looks for a class, by Grad-CAM (captum), as one page.

Grad-CAM: Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391, of the last layer that has a map.
"""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DataError, UnknownNameError, require, writable_place
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import check_network
from mobilezoo.workflows.predict import Guess, images_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mobilezoo.workflows.load_model import LoadedModel

MOST_IMAGES = 100
PICTURE_PX = 320
BEST = 3
HEAT = (
    (0.0, (20, 11, 52)),
    (0.35, (132, 32, 107)),
    (0.65, (229, 92, 48)),
    (0.85, (246, 190, 62)),
    (1.0, (252, 255, 164)),
)
"""Dark to bright with growing lightness, so that it reads without colors too."""


class Explanation(Record):
    """One image: the best classes, and the map of one class over it; or why it could not be read."""

    image: str
    fault: str | None = None
    best: tuple[Guess, ...] = ()
    target: Guess | None = None
    """The class whose map it is."""
    layer: str = ""
    empty: bool = False
    """Nothing in the layer speaks for the class: the map is zero everywhere."""
    picture: str = ""
    """The image as the network is given it; base64 of a JPEG."""
    heat: str = ""
    """The same under the map."""


class _Looking(NamedTuple):
    """A network and the layer whose map is drawn."""

    loaded: "LoadedModel"
    layer: str
    target: int | None


def explain(
    model: str,
    images: list[Path],
    out: Path,
    options: ModelOptions = NO_OPTIONS,
    *,
    target: str | None = None,
    layer: str | None = None,
    hooks: Hooks = SILENT,
) -> list[Explanation]:
    """Draw Grad-CAM maps of some images and write them as one page.

    Args:
        model: checkpoint, name or YAML; no exported file, which has no gradients.
        images: files and folders, as for `predict`.
        out: HTML page.
        options: changes to what the record or the config has.
        target: name or number of the class that is explained; None: the most probable one of each image.
        layer: module whose output is weighted; None: the last one that gives a map.
        hooks: receives progress.

    Returns:
        A record per image, in order.

    Raises:
        MissingToolError: captum or jinja2 is not installed.
        MobilezooError: random weights, too many images, or a class or layer that the network does not have.
    """
    from mobilezoo.report.explain_page import write_explanations
    from mobilezoo.workflows.load_model import load_model
    from mobilezoo_export.registry import is_exported

    require("captum", "explain")
    require("jinja2", "report")
    writable_place(out, "--out")
    if is_exported(model):
        raise ConfigError(f"{model!r} is an exported file, which has no gradients: name the checkpoint it was made of")
    check_network(model, options)
    paths = images_of(images)
    if len(paths) > MOST_IMAGES:
        raise DataError(f"{len(paths)} images on one page: name at most {MOST_IMAGES}")
    loaded = load_model(model, options)
    if loaded.random_weights:
        raise ConfigError(f"{model!r} has random weights here: pass --checkpoint PATH")
    looking = _Looking(loaded, _layer(loaded, layer), _target(target, loaded))
    found = [_explained(looking, path) for path in hooks.track(paths, "explaining", len(paths))]
    if any(one.fault is None for one in found):  # of failures alone there is no page
        write_explanations(out, model, looking.layer, found)
    return found


def _layer(loaded: "LoadedModel", name: str | None) -> str:
    """The module to look at. Raises UnknownNameError, ConfigError."""
    maps = map_layers(loaded.network, loaded.in_chans, loaded.resolution)
    if name is None:
        if not maps:
            raise ConfigError(f"no layer of {loaded.name!r} gives a map of more than one pixel: Grad-CAM has no place")
        return maps[-1]
    if name not in maps:
        raise UnknownNameError("layer with a map", name, maps)
    return name


def map_layers(network: "nn.Module", channels: int, size: tuple[int, int]) -> list[str]:
    """Modules whose output is a map [1, C, H, W] of more than one pixel, in the order in which they end.

    Tokens by heads, matrices of attention and maps with channels last have four axes too: a map is what has the shape
    of the image, up to borders.

    Args:
        network: in eval mode.
        channels: of its input.
        size: height and width of its input.
    """
    import torch

    names: list[str] = []

    def hook(name: str) -> Any:
        def ended(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and _is_map(tuple(output.shape[2:]), size):
                names.append(name)

        return ended

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, *size))
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(names))


def _is_map(found: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether both sides are those of the image divided by one whole number, give or take what borders cost."""
    stride = max(1, round(max(size) / max(found)))
    slack = max(1, min(3, max(found) / 8))
    return max(found) > 1 and all(abs(side / stride - one) <= slack for one, side in zip(found, size, strict=True))


def _target(word: str | None, loaded: "LoadedModel") -> int | None:
    """The output of --target. Raises UnknownNameError, ConfigError."""
    if word is None:
        return None
    if word in loaded.labels:
        return loaded.labels.index(word)
    if not word.isdecimal():
        if loaded.labels:
            raise UnknownNameError("class", word, loaded.labels)
        raise ConfigError(f"--target {word!r}: {loaded.name!r} knows no names, give the number of an output (0 first)")
    return int(word)


def _explained(looking: _Looking, path: Path) -> Explanation:
    from mobilezoo.data.pixels import BAD_IMAGE, Pixels
    from mobilezoo.data.transforms import Normalize, eval_pixels

    loaded = looking.loaded
    try:
        image = Pixels(channels=loaded.preprocessing.channels).read(path)
        pixels = eval_pixels(loaded.preprocessing, loaded.resolution)(image)
    except BAD_IMAGE as error:  # a strip of an image may have no row left once it is fitted
        return Explanation(image=str(path), fault=" ".join(str(error).split())[:200])
    x = Normalize(loaded.preprocessing)(pixels)[None]
    probabilities, target, heat = _grad_cam(looking, x)
    guess = [Guess(index=i, label=_label(loaded, i), probability=float(p)) for i, p in enumerate(probabilities)]
    shown = _shown(np.asarray(pixels).transpose(1, 2, 0))
    return Explanation(
        image=str(path),
        best=tuple(guess[i] for i in np.argsort(-probabilities, kind="stable")[:BEST]),
        target=guess[target],
        layer=looking.layer,
        empty=not heat.any(),
        picture=_jpeg(shown),
        heat=_jpeg(overlay(shown, heat)),
    )


def _label(loaded: "LoadedModel", index: int) -> str | None:
    return loaded.labels[index] if loaded.labels else None


def _grad_cam(looking: _Looking, x: "torch.Tensor") -> tuple[np.ndarray, int, np.ndarray]:
    """Probabilities (K,), the explained output, and its map (h, w) in 0..1."""
    import torch
    from captum.attr import LayerGradCam

    network = looking.loaded.network
    with torch.no_grad():
        probabilities = network(x).float().softmax(1)[0].numpy()
    target = int(probabilities.argmax()) if looking.target is None else looking.target
    if target >= len(probabilities):
        raise ConfigError(f"--target {target}: the network has {len(probabilities)} outputs (0 first)")
    module = network.get_submodule(looking.layer)
    with torch.enable_grad():
        weighted = LayerGradCam(network, module).attribute(x.requires_grad_(), target, relu_attributions=True)
    heat = weighted.detach()[0, 0].numpy()
    return probabilities, target, heat / heat.max() if heat.max() > 0 else heat


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, C) as RGB (H, W, 3), its longer side about `PICTURE_PX`."""
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = PICTURE_PX / max(image.size)
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, how))


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Pixels under the colors of a map that is enlarged to them.

    Args:
        pixels: uint8 (H, W, 3).
        heat: float (h, w) in 0..1.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    large = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(large), 0, 1)
    places = [place for place, _ in HEAT]
    painted = np.stack([np.interp(values, places, [color[i] for _, color in HEAT]) for i in range(3)], axis=-1)
    grey = pixels.mean(axis=2, keepdims=True)
    mixed: np.ndarray = np.rint(0.45 * grey + 0.55 * painted).astype(np.uint8)
    return mixed


def _jpeg(pixels: np.ndarray) -> str:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=88)
    return base64.b64encode(written.getvalue()).decode()
